"""What a network says about a text, and what it looked at: `Explainer`."""

from lightning_attn.explain.explainer import Explainer, Explanation, attribute, default_methods, method_for

__all__ = ["Explainer", "Explanation", "attribute", "default_methods", "method_for"]
