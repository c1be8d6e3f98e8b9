"""Scaled dot-product attention against one learned query."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_attn.attention.base import Attention


class DotAttention(Attention):
    """``s_i = u . k_i / sqrt(K)`` with a learned ``u`` and no bias, the ``dot`` attention of Jain and Wallace.

    Source: Vaswani et al., NeurIPS 2017, https://arxiv.org/abs/1706.03762, equation 1, with one learned query; as in
    Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186.
    """

    def make_layers(self, key_size: int) -> None:
        """Create ``u``."""
        self.query = nn.Linear(key_size, 1, bias=False)

    def score(self, keys: Tensor) -> Tensor:
        """Scores, shape ``(B, L)``, from keys ``(B, L, K)``."""
        return self.query(keys).squeeze(-1) / keys.shape[-1] ** 0.5  # type: ignore[no-any-return]
