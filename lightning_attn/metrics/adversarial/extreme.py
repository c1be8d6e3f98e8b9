"""Our search for adversarial attention: the divergence is convex, so it is largest at an extreme point."""

from __future__ import annotations

import torch

from lightning_attn.metrics.adversarial.ascent import ascend
from lightning_attn.metrics.adversarial.base import Adversarial, AdversarialSolver
from lightning_attn.metrics.adversarial.corners import cheapest_corner, corner_answers
from lightning_attn.metrics.adversarial.edges import edge_points, log_odds
from lightning_attn.metrics.adversarial.problem import Problem
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.parts import by_parts
from lightning_attn.types import AttentionOutput, Batch

#: Candidates of an example that are held at a time: points on edges and a corner.
_HELD_OF_TWO_CLASSES, _HELD = 17, 33
#: Divergence that is not worth a longer search.
_NEGLIGIBLE = 1e-3


class EdgeSolver(AdversarialSolver):
    """Looks for the maximum where it must be, among weights on few positions.

    The divergence from the attention is convex, so over the weights that keep the output it is largest at an extreme
    point. If the log-odds of two classes are linear in the weights, as under a linear head, these points are the
    corners of the simplex that keep the output (all mass on one position) and the points on its edges where the output
    has moved by just epsilon (the mass on two). The best of them is then the maximum itself, of texts of up to 64
    positions on either side; of longer ones, those with least attention are searched. Under any other head the points
    on the edges are found by false position and bisection. With more than two classes more than two positions may be
    needed, so a mirror ascent from four starts follows wherever the largest divergence of all was not reached.

    Whatever is found was verified with ``classify_many``, whatever the head. Nothing is random.

    Args:
        epsilon: See :class:`AdversarialSolver`.
    """

    def solve(
        self, network: AttentionNetwork, output: AttentionOutput, batch: Batch, max_tokens: int = 16384
    ) -> Adversarial:
        """See :meth:`AdversarialSolver.solve`."""
        with torch.no_grad(), evaluating(network):
            problem = Problem.of(network, output, batch)
            held = _HELD_OF_TWO_CLASSES if problem.one_margin else _HELD
            return by_parts(lambda rows: self._search(problem.select(rows), max_tokens), batch.valid, max_tokens, held)

    def _search(self, problem: Problem, max_tokens: int) -> Adversarial:
        corners = corner_answers(problem, max_tokens)
        kept = problem.inner & (problem.change(corners) <= self.epsilon)
        candidates = [cheapest_corner(problem, kept), edge_points(problem, log_odds(problem, corners), self.epsilon)]
        found = problem.best(torch.cat(candidates, dim=1), self.epsilon)
        if problem.one_margin:
            return found
        most = problem.divergence(cheapest_corner(problem, problem.inner)).squeeze(-1)
        rows = (found.jsd < most - _NEGLIGIBLE).nonzero().squeeze(-1)
        if len(rows):
            part = problem.select(rows)
            ascended = ascend(part, corners[rows], self.epsilon)
            best = part.best(torch.cat([found.attention[rows, None], ascended], dim=1), self.epsilon)
            found.jsd[rows], found.change[rows], found.attention[rows] = best.jsd, best.change, best.attention
        return found
