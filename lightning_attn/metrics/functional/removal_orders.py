"""Orders of removal: a ranking against its reverse, and between the network's own worst and best order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.erasure import explained
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.parts import rows_within
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.perturbation.signatures import removal_signatures
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.types import Batch

#: Below this distance of the bounds every order does the same but for rounding noise.
_NOISE = 1e-6
#: Most tokens of a text whose subsets are all read: 65,534 texts for one.
_MOST_EXACT = 16
#: Elements of the largest temporary tensor of a beam search.
_CHUNK = 1 << 25


def srg(p_most_first: Tensor, p_least_first: Tensor) -> Tensor:
    """Symmetric relevance gain: what is left when the least important tokens go first, less when the most do.

    A random ranking has 0 in expectation, whatever the network and however tokens are removed: the level of a curve
    cancels out.

    Args:
        p_most_first: Probability of the explained class, the k best-ranked tokens removed, for each of K budgets, shape
            ``(B, K)``, in [0, 1].
        p_least_first: The same with the k worst-ranked removed.

    Returns:
        One value per example, shape ``(B,)``, in [-1, 1]; higher is more faithful.

    Source: Blücher, Vielhaben and Strodthoff, TMLR 2024, https://arxiv.org/abs/2401.06654
    """
    return (p_least_first - p_most_first).mean(dim=-1)


def naopc(aopc: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """AOPC between the network's own worst and best order of removal, so that networks can be compared.

    Args:
        aopc: Mean drop over the removals of 1, 2, ..., n - 1 tokens in the order that is measured, shape ``(B,)``. The
            removal of all n is the same in every order and cancels out.
        lower: The smallest such mean of any order, shape ``(B,)``, such as that of :func:`aopc_bounds`.
        upper: The largest.

    Returns:
        One value per example, shape ``(B,)``, in [0, 1]; higher is more faithful. NaN where all orders do the same.
        Where a search has missed an order that is better or worse than the one measured, that one is the bound.

    Source: Edin et al., ACL 2025, https://arxiv.org/abs/2408.08137
    """
    lower, upper = torch.minimum(lower, aopc), torch.maximum(upper, aopc)
    spread = upper - lower
    return ((aopc - lower) / spread).where(spread > _NOISE, torch.nan)


@torch.no_grad()
def aopc_bounds(
    network: AttentionNetwork,
    batch: Batch,
    target: Tensor,
    full: Tensor,
    perturbation: Perturbation | None = None,
    width: int = 5,
    exact: int = 8,
    max_tokens: int = 16384,
) -> tuple[Tensor, Tensor]:
    """Smallest and largest mean drop over the removals of 1, 2, ..., n - 1 tokens, over the orders of removal.

    Texts of up to ``exact`` tokens: all sets of tokens are read, ``2^n - 2``, and the best way through them is exact.
    Longer texts: a beam search for each bound that keeps the ``width`` best sets of each size; about ``width * n^2``
    variants per text, so that 50 tokens cost as much as leave-one-out of 10,000. What is found is an order that exists,
    so the largest drop is underestimated if anything.

    Args:
        network: Built network.
        batch: B padded examples.
        target: The explained class, shape ``(B,)``.
        full: Class probabilities of the whole texts, shape ``(B, C)``.
        perturbation: What happens to removed tokens; None means ``Delete()``.
        width: Sets of each size that a beam search keeps, at least 1.
        exact: Tokens up to which all sets are read, 0 to 16.
        max_tokens: See :func:`lightning_attn.perturbation.sweep.probabilities`.

    Returns:
        Lower and upper bounds, shape ``(B,)`` each, in [-1, 1]; NaN where there are fewer than two tokens.

    Raises:
        InputError: ``width`` or ``exact`` is out of range.

    Source: Edin et al., ACL 2025, https://arxiv.org/abs/2408.08137; there exact bounds go through all n! orders, and
    beams may hold one set several times.
    """
    if width < 1:
        raise InputError(f"A beam search needs a width of at least 1, not {width}.")
    if not 0 <= exact <= _MOST_EXACT:
        raise InputError(f"All sets of tokens are read of texts of up to 0 to {_MOST_EXACT} tokens, not {exact}.")
    n = batch.inner.sum(dim=-1)
    bounds = torch.full((len(batch), 2), torch.nan, device=batch.device)
    with evaluating(network):
        batch = network.read_query(batch)
    short, long = ((n > 1) & which for which in (n <= exact, n > exact))
    at_once = rows_within(_CHUNK, 2 * width * batch.valid.shape[1] ** 2)
    for rows in (short.nonzero().squeeze(1), *torch.split(long.nonzero().squeeze(1), at_once)):
        if not len(rows):
            continue
        part, classes, before = batch.select(rows), target[rows], full[rows]

        def drops(removed: Tensor, part: Batch = part, classes: Tensor = classes, before: Tensor = before) -> Tensor:
            after = probabilities(network, part, ~removed, perturbation, max_tokens, before)
            return before.gather(-1, classes[:, None]) - explained(after, classes)

        sums = _beams(drops, part.inner, width) if long[rows[0]] else _all_sets(drops, part.inner)
        bounds[rows] = (sums / (n[rows, None] - 1)).to(bounds.dtype)
    return bounds[:, 0], bounds[:, 1]


#: From sets of removed positions, shape ``(R, V, L)``, to the drops of the explained class, shape ``(R, V)``.
_Drops = Callable[[Tensor], Tensor]


def _all_sets(drops: _Drops, inner: Tensor) -> Tensor:
    """Smallest and largest sum of drops on the way from nothing removed to one token left, shape ``(R, 2)``."""
    n = inner.sum(dim=-1)
    most = int(n.max())
    device = inner.device
    sets = torch.arange(2**most, device=device)
    bits = (sets[:, None] >> torch.arange(most, device=device)) & 1 > 0
    size = bits.sum(dim=-1)
    # Bit i is the i-th token of a text; in shorter texts the last bits stand for nothing.
    places = (~inner).to(torch.int8).argsort(dim=-1, stable=True)[:, :most]
    within = torch.arange(most, device=device) < n[:, None]
    removed = torch.zeros(len(inner), len(sets), inner.shape[1], dtype=torch.bool, device=device)
    removed.scatter_(2, places[:, None].expand(-1, len(sets), -1), bits & within[:, None])
    removed &= (removed.sum(dim=-1) < n[:, None])[..., None]  # never everything
    drop = drops(removed)
    sums = torch.stack([-drop, drop], dim=1)
    for count in range(2, most):
        now = (size == count).nonzero().squeeze(1)
        taken = bits[now].nonzero()[:, 1].view(len(now), count)  # each of its tokens may have been the last to go
        before = now[:, None] - (1 << taken)
        sums[..., now] += sums[..., before].amax(dim=-1)
    last = (size == n[:, None] - 1) & (sets < (1 << n)[:, None])
    best = sums.masked_fill(~last[:, None], -torch.inf).amax(dim=-1)
    return best * best.new_tensor([-1, 1])


def _beams(drops: _Drops, inner: Tensor, width: int) -> Tensor:
    """The same by two beam searches, towards small and towards large drops; shape ``(R, 2)``."""
    rows, length = inner.shape
    n = inner.sum(dim=-1)
    each = torch.eye(length, dtype=torch.bool, device=inner.device)
    removed = torch.zeros(rows, 2, 1, length, dtype=torch.bool, device=inner.device)
    sums = torch.zeros(rows, 2, 1, dtype=torch.float64, device=inner.device)
    sign = sums.new_tensor([-1, 1])[:, None, None]
    for count in range(1, int(n.max())):
        going = count < n
        possible = inner[:, None, None] & ~removed & going[:, None, None, None] & sums.isfinite()[..., None]
        sets = (removed[..., None, :] | each) & possible[..., None]  # what cannot be is not read: nothing removed
        flat = sets.flatten(1, 3)
        drop = drops(flat).view(possible.shape)
        scores = (sums[..., None] + sign * drop).masked_fill(~possible, -torch.inf).flatten(2)
        chosen = _best_distinct(scores, removal_signatures(~flat, inner).view_as(scores), width)
        removed = sets.flatten(2, 3).gather(2, chosen[..., None].expand(-1, -1, -1, length))
        before = torch.nn.functional.pad(sums, (0, chosen.shape[-1] - sums.shape[-1]), value=-torch.inf)
        sums = torch.where(going[:, None, None], scores.gather(2, chosen), before)
    return sums.amax(dim=-1) * sign.view(2)


def _best_distinct(scores: Tensor, signatures: Tensor, width: int) -> Tensor:
    """Where the ``width`` best scores stand, each set once; the earlier of equal ones. Shapes ``(R, 2, V)``."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    ranked, places = signatures.gather(-1, order).sort(dim=-1, stable=True)
    again = torch.zeros_like(ranked, dtype=torch.bool)
    again[..., 1:] = ranked[..., 1:] == ranked[..., :-1]
    repeated = torch.empty_like(again).scatter_(-1, places, again)
    return order.gather(-1, repeated.to(torch.int8).argsort(dim=-1, stable=True))[..., :width]
