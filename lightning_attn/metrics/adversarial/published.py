"""The published search for adversarial attention: gradient ascent from random starts."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.attribution.gradients import differentiable
from lightning_attn.errors import InputError
from lightning_attn.metrics.adversarial.problem import Adversarial, AdversarialSolver, Problem
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.divergence import jensen_shannon
from lightning_attn.ops.parts import by_parts
from lightning_attn.ops.randomness import normal
from lightning_attn.ops.softmax import masked_softmax
from lightning_attn.types import AttentionOutput, Batch

#: Change of the output, here the sum over classes, that the loss tolerates, and its price above that.
_TOLERATED, _PRICE = 0.01, 500.0


class PublishedSolver(AdversarialSolver):
    """Adam ascends the divergence of K adversaries jointly, and pays for the change of the output.

    All adversaries of all examples are fitted together, each example for itself.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.2, as in their code: Adam with
    amsgrad and rate 0.01, a start of 3 * N(0, 1) logits. Their measure of change is ours: the absolute difference for
    one sigmoid, half the sum for a softmax.

    Args:
        adversaries: K adversaries of each example, at least 1.
        steps: Steps of Adam, at least 1.
        seed: The start depends on it and on ``batch.index``.
        epsilon: See :class:`AdversarialSolver`.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(self, adversaries: int = 5, steps: int = 500, seed: int = 0, epsilon: float = 0.05) -> None:
        super().__init__(epsilon)
        for name, value in (("adversaries", adversaries), ("steps", steps)):
            if value < 1:
                raise InputError(f"PublishedSolver needs {name} of at least 1, not {value}.")
        self.adversaries = adversaries
        self.steps = steps
        self.seed = seed

    def solve(
        self, network: AttentionNetwork, output: AttentionOutput, batch: Batch, max_tokens: int = 16384
    ) -> Adversarial:
        """See :meth:`AdversarialSolver.solve`."""
        with differentiable(network, batch) as copy:
            problem = Problem.from_output(network, output, copy)
            return by_parts(lambda rows: self._ascend(problem.select(rows)), copy.valid, max_tokens, self.adversaries)

    def _ascend(self, problem: Problem) -> Adversarial:
        index, length = problem.batch.index, problem.attention.shape[-1]
        seeds = range(self.seed * self.adversaries, (self.seed + 1) * self.adversaries)
        logits = torch.stack([3 * normal(index, length, seed) for seed in seeds], dim=1).requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.01, amsgrad=True)

        def weights() -> Tensor:
            return problem.place(masked_softmax(logits, problem.inner[:, None]))

        for _ in range(self.steps):
            drawn = weights()
            found = problem.probabilities(problem.answers(drawn))
            moved = (found - problem.full[:, None]).abs().sum(dim=-1)
            apart = jensen_shannon(drawn, problem.attention[:, None]) - _PRICE * (moved - _TOLERATED).relu()
            spread = jensen_shannon(drawn[:, :, None], drawn[:, None]).mean(dim=(1, 2))
            (logits.grad,) = torch.autograd.grad(-apart.sum() - spread.sum(), logits)
            optimiser.step()
        with torch.no_grad():
            return problem.best(weights(), self.epsilon)
