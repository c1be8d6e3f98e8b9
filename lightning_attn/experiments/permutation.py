"""Does the output depend on which token got which weight?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_attn.experiments.forward import by_parts, computed
from lightning_attn.metrics.functional.permutation import permutation_tvd
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import AttentionOutput, Batch


@dataclass
class Permutation:
    """What permuting the attention does to each example.

    Attributes:
        change: Median change of the output over the permutations, a total variation distance in [0, 1], shape ``(B,)``;
            NaN where fewer than two positions can be permuted.
        largest: Largest weight on a position that can be permuted, in [0, 1], shape ``(B,)``. The more of the mass
            one token has, the more a permutation should change.
    """

    change: Tensor
    largest: Tensor


def permutation(
    network: AttentionNetwork, batch: Batch, *, permutations: int = 100, seed: int = 0, max_tokens: int = 16384
) -> Permutation:
    """Permute the attention of each example over ``batch.inner`` and see how much the output moves.

    Args:
        network: Built network.
        batch: B examples.
        permutations: Permutations of each example, at least 1.
        seed: They depend on it and on ``batch.index``.
        max_tokens: Positions, padding included, of the texts read and of the permutations held at a time.

    Raises:
        InputError: ``permutations`` or ``max_tokens`` is below 1.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.1.
    """

    def measure(output: AttentionOutput, part: Batch) -> Permutation:
        change = permutation_tvd(network, output, part, permutations, seed, max_tokens)
        return Permutation(change, output.attention.masked_fill(~part.inner, 0.0).amax(dim=-1))

    return by_parts(lambda part: measure(*computed(network, part)), batch, max_tokens)
