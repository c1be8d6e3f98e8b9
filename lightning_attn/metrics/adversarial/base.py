"""What a search for adversarial attention finds, and the base class of the searches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import AttentionOutput, Batch


@dataclass
class Adversarial:
    """Other attention that gives the same output, for each example.

    Attributes:
        jsd: Its Jensen-Shannon divergence from the attention in nats, in [0, ln 2], shape ``(B,)``; 0 if none was
            found, NaN where fewer than two positions can be attended. High: other attention gives the same output.
        change: How far it moves the output, a total variation distance of at most the solver's ``epsilon``, shape
            ``(B,)``; 0 if none was found, NaN as ``jsd``.
        attention: The weights, shape ``(B, L)``; the attention itself if none was found.
    """

    jsd: Tensor
    change: Tensor
    attention: Tensor


class AdversarialSolver(ABC):
    """Searches for the weights that are farthest from the attention among those that keep the output.

    The weights are a distribution over ``batch.valid``, and those on special tokens stay as they are.

    Args:
        epsilon: How far the output may move, a total variation distance, in (0, 1).

    Raises:
        InputError: ``epsilon`` is out of range.
    """

    def __init__(self, epsilon: float = 0.05) -> None:
        if not 0 < epsilon < 1:
            raise InputError(f"{type(self).__name__} needs an epsilon between 0 and 1, not {epsilon}.")
        self.epsilon = epsilon

    @abstractmethod
    def solve(
        self, network: AttentionNetwork, output: AttentionOutput, batch: Batch, max_tokens: int = 16384
    ) -> Adversarial:
        """Search.

        Args:
            network: Only its ``classify`` and ``classify_many`` run, with the parameters as they are.
            output: What the network computed for ``batch``.
            batch: B examples.
            max_tokens: Positions, padding included, of all candidates that are held at a time; the candidates of a
                single example may exceed it.

        Returns:
            An example's result depends neither on the other examples nor on the padding.
        """
