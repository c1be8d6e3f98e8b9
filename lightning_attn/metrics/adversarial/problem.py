"""What the searches for adversarial attention share: candidates in, output change and divergence out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.divergence import jensen_shannon, total_variation
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


@dataclass
class Problem:
    """One search an example, in single precision whatever the network computes in.

    Candidates are V distributions over the inner positions of each example ("shares"), or the weights that come of
    them: the learned ones on special positions, and what is left of the mass dealt out by the shares.

    Attributes:
        network: Answers for candidates.
        values: What it weighs, shape ``(B, L, H)``.
        batch: B padded examples, the query read.
        attention: The learned weights, shape ``(B, L)``.
        logits: The output under them, shape ``(B, C)``.
    """

    network: AttentionNetwork
    values: Tensor
    batch: Batch
    attention: Tensor
    logits: Tensor

    @classmethod
    def from_output(cls, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Problem:
        """The problem of a batch; tensors of inference mode are copied, because they cannot be differentiated."""
        with torch.no_grad():
            read = network.read_query(batch.replace(evidence=None))
        values, attention, logits = (
            tensor.detach().clone() for tensor in (output.values, output.attention, output.logits)
        )
        return cls(network, values, read, attention.float(), logits.float())

    def __post_init__(self) -> None:
        self.inner = self.batch.inner
        self.special = self.attention.masked_fill(self.inner, 0.0)
        self.mass = self.attention.masked_fill(~self.inner, 0.0).sum(dim=-1, keepdim=True)
        self.full = self.network.schema.probabilities(self.logits)

    def select(self, rows: Tensor) -> Problem:
        """The problems of some examples, int64 positions or a bool per example."""
        return Problem(
            self.network, self.values[rows], self.batch.select(rows), self.attention[rows], self.logits[rows]
        )

    @property
    def one_margin(self) -> bool:
        """Whether the log-odds of one class say all about the output: two classes, or one label."""
        return self.logits.shape[-1] <= (1 if self.network.schema.multi_label else 2)

    def place(self, shares: Tensor) -> Tensor:
        """Weights that belong to shares, both of shape ``(B, V, L)``."""
        return self.special[:, None] + self.mass[:, None] * shares

    def answers(self, weights: Tensor) -> Tensor:
        """Logits ``(B, V, C)`` under weights ``(B, V, L)``."""
        return self.network.classify_many(self.values, weights.to(self.values.dtype), self.batch).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities of logits, both of shape ``(B, V, C)``."""
        return self.network.schema.probabilities(logits)

    def change(self, logits: Tensor) -> Tensor:
        """How far logits ``(B, V, C)`` move the class probabilities, a total variation distance, shape ``(B, V)``."""
        schema = self.network.schema
        return total_variation(schema.probabilities(logits), self.full[:, None], schema.multi_label)

    def divergence(self, weights: Tensor) -> Tensor:
        """Divergence of weights ``(B, V, L)`` from the attention, shape ``(B, V)``."""
        return jensen_shannon(weights, self.attention[:, None]).clamp(min=0.0)

    def best(self, weights: Tensor, epsilon: float) -> Adversarial:
        """The farthest of the candidates ``(B, V, L)`` that keep the output, the attention itself if none does."""
        change = self.change(self.answers(weights))
        jsd = self.divergence(weights).masked_fill(~(change <= epsilon), 0.0)
        found, chosen = jsd.max(dim=-1)
        none, undefined = found == 0, self.inner.sum(dim=-1) < 2
        change = change.gather(-1, chosen[:, None]).squeeze(-1).masked_fill(none, 0.0)
        farthest = weights.take_along_dim(chosen[:, None, None], dim=1).squeeze(1)
        return Adversarial(
            jsd=found.masked_fill(undefined, torch.nan),
            change=change.masked_fill(undefined, torch.nan),
            attention=torch.where((none | undefined)[:, None], self.attention, farthest),
        )
