"""What a checkpoint says about a text, and what it looked at: `Explainer`."""

from lightning_attn.explain.explainer import Explainer, default_methods, method_for
from lightning_attn.explain.explanation import Explanation

__all__ = ["Explainer", "Explanation", "default_methods", "method_for"]
