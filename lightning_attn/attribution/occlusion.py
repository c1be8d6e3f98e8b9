"""Leave-one-out: what happens to the output when a token goes."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.perturbation.sweep import output_change, probabilities
from lightning_attn.perturbation.variants import leave_one_out, unperturbed
from lightning_attn.types import Batch


@register("occlusion")
class Occlusion(Attribution):
    """``mean_c | p_c(x) - p_c(x without i) |``, the text read anew without each of its tokens.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186.

    Args:
        perturbation: What happens to the token; None means it is deleted.
        signed: Give ``p_c(x) - p_c(x without i)`` of the explained class instead.
        max_tokens: See :func:`lightning_attn.perturbation.sweep.probabilities`.
    """

    def __init__(self, perturbation: Perturbation | None = None, signed: bool = False, max_tokens: int = 16384) -> None:
        self.perturbation = perturbation
        self.signed = signed
        self.max_tokens = max_tokens

    @override
    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """In [0, 1], or [-1, 1] if signed."""
        # The whole text is one of the variants, so that what is compared comes from one computation.
        keep = torch.cat([unperturbed(batch), leave_one_out(batch)], dim=1)
        answers = probabilities(network, batch, keep, self.perturbation, self.max_tokens)
        full, without = answers[:, 0], answers[:, 1:]
        if not self.signed:
            return output_change(full, without)
        explained = full.argmax(dim=-1) if target is None else target
        drop = full[:, None] - without
        return drop.gather(-1, explained[:, None, None].expand(-1, drop.shape[1], 1)).squeeze(-1)
