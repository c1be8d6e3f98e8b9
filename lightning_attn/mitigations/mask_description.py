"""Numbers that describe attention weights and nothing of the text, differentiable in the weights: `MaskDescription`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_attn.mitigations.mask_classifier import mask_features, mask_places

_BINS = 10
_LEAST = -4.0  # of ln(a_i n): what is smaller weighs nothing, and tells nothing
_SPREAD = 1e-8


class MaskDescription(nn.Module):
    """What of the attention may give a label away: how concentrated it is, where it is, and mixtures of both.

    Concentration: mean and attention-weighted mean of ``ln(a_i n)``, and the peak. Places: mean, spread, and mass in
    tenths of the positions. Mixtures: random rectified combinations of ``ln(a_i n)`` and place, pooled by mean and by
    attention, so that a linear reader sees what is not linear in the weights (Rahimi and Recht, NeurIPS 2007). Of all
    of it what uniform weights have is taken off, so that these say nothing, whatever the number of positions.

    Args:
        places: Whether the order of the positions means anything; False for bags.
        size: Random combinations.
    """

    layer: Tensor

    def __init__(self, places: bool = True, size: int = 16) -> None:
        super().__init__()
        self.places = places
        # Drawn apart from torch's state, so that the parameters of the model are the same with and without.
        layer = torch.randn(2 + places, size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("layer", layer)

    @property
    def size(self) -> int:
        """Number of columns."""
        return 3 + (2 + _BINS if self.places else 0) + 2 * self.layer.shape[1]

    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        """Describe.

        Args:
            attention: Shape ``(B, L)``.
            allowed: Positions that may be attended, shape ``(B, L)``, bool.

        Returns:
            Shape ``(B, size)``, all of the order of 1; padding changes nothing.
        """
        uniform = allowed / allowed.sum(dim=-1, keepdim=True).clamp(min=1).to(attention.dtype)
        return self._columns(attention, allowed, uniform) - self._columns(uniform, allowed, uniform)

    def _columns(self, attention: Tensor, allowed: Tensor, uniform: Tensor) -> Tensor:
        features = mask_features(attention, allowed)
        log, place = features[..., 1].clamp(min=_LEAST), features[..., 2]
        columns = [
            (attention * log).sum(dim=-1, keepdim=True),
            (uniform * log).sum(dim=-1, keepdim=True),
            attention.amax(dim=-1, keepdim=True),
        ]
        inputs = [log / 2, torch.ones_like(log)]
        if self.places:
            mean, variance, mass = mask_places(attention, allowed, place, _BINS)
            columns += [mean, variance.clamp(min=_SPREAD).sqrt(), mass]
            inputs.append(2 * place - 1)
        hidden = (torch.stack(inputs, dim=-1) @ self.layer.to(attention.dtype)).relu()
        pooled = torch.stack([uniform, attention], dim=1) @ hidden
        return torch.cat([*columns, pooled.flatten(1)], dim=-1)


def length_description(allowed: Tensor) -> Tensor:
    """What the number of positions tells, whatever the weights; shape ``(B, 2)`` from ``(B, L)``."""
    log = allowed.sum(dim=-1, keepdim=True).clamp(min=1).to(torch.float32).log()
    return torch.cat([log, log.square() / 4], dim=-1)
