"""Do the weights find the key instances of a bag? One value a bag, undefined where no or every instance is key.

Key instances are those with evidence above 0, of bags of any class: the data say which, and a bag of a class without
keys is undefined, so means are over the bags that have something to find. Instances of unknown evidence count neither
way. Ties share what they tie for, so no measure depends on the order of the instances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.metrics.functional.concentration import effective_tokens
from lightning_attn.metrics.functional.plausibility import at_least, auprc, auroc, known_evidence, mixed

#: A weight is above 1/n if it is larger by more than this share.
_NOISE = 1e-6

#: What :func:`ranked_measures` gives, in this order.
RANKED_MEASURES = ("auroc", "average_precision", "ndcg", "precision")

#: What :func:`instance_measures` gives, in this order.
INSTANCE_MEASURES = (*RANKED_MEASURES, "key_mass", "effective_instances", "key_rate", "covered")


def log_weights(scores: Tensor, inner: Tensor) -> Tensor:
    """Logarithm of the softmax of scores, in float64: a saturated softmax rounds to ties at 0, and this does not.

    Args:
        scores: Before softmax, shape ``(B, L)``.
        inner: ``Batch.inner``, shape ``(B, L)``.

    Returns:
        Shape ``(B, L)``, float64, finite; 0 where not inner.
    """
    logs = scores.double().masked_fill(~inner, torch.finfo(torch.float64).min).log_softmax(dim=-1)
    return logs.masked_fill(~inner, 0.0)


def ranked_measures(scores: Tensor, evidence: Tensor, inner: Tensor) -> dict[str, Tensor]:
    """Measures that ask only for a ranking.

    With r key instances: ``precision`` is the share of keys among the r best-ranked; ``ndcg`` is the sum over these of
    ``t / log2(rank + 1)``, t being 1 for a key, over the largest possible sum (Järvelin and Kekäläinen, TOIS 2002, with
    binary gains, cut at r); ``auroc`` and ``average_precision`` are :func:`auroc` and :func:`auprc`. A random ranking
    gets the key rate as ``precision``, and as ``average_precision`` where bags are large, more where they are small.

    Args:
        scores: Any finite numbers, shape ``(B, L)``.
        evidence: See :func:`known_evidence`.
        inner: See :func:`known_evidence`.

    Returns:
        By name, shape ``(B,)``, in [0, 1]; NaN where no or every instance is key.
    """
    keys, known = known_evidence(evidence, inner)
    count = keys.sum(dim=-1)
    as_high, higher = at_least(scores, known)
    # Instances of one score stand at the ranks higher + 1 ... as_high, in any order: each gets their mean gain.
    ranks = torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=torch.float64)
    discounts = torch.nn.functional.pad((1 / (ranks + 1).log2()).cumsum(dim=0), (1, 0))
    places = (as_high - higher).clamp(min=1)
    first, last = torch.minimum(higher, count[:, None]), torch.minimum(as_high, count[:, None])
    gain = ((discounts[last] - discounts[first]) / places).masked_fill(~keys, 0.0).sum(dim=-1)
    hits = ((last - first) / places).masked_fill(~keys, 0.0).sum(dim=-1)
    undefined = ~mixed(keys, known)
    return {
        "auroc": auroc(scores, evidence, inner),
        "average_precision": auprc(scores, evidence, inner),
        "ndcg": (gain / discounts[count]).masked_fill(undefined, torch.nan),
        "precision": (hits / count).masked_fill(undefined, torch.nan),
    }


def instance_measures(logs: Tensor, evidence: Tensor, inner: Tensor) -> dict[str, Tensor]:
    """How well attention finds the key instances, and how it spreads its mass.

    Beside :func:`ranked_measures`: ``key_mass``, the sum of the weights of the keys; ``covered``, the share of keys
    with a weight above 1/n; ``effective_instances``, ``exp`` of the entropy, from 1 to n; ``key_rate``, keys over
    instances. The ranking cannot see mass that has collapsed onto one key of many; the first three can.

    Args:
        logs: Logarithm of the weights, see :func:`log_weights`, shape ``(B, L)``.
        evidence: See :func:`known_evidence`.
        inner: See :func:`known_evidence`.

    Returns:
        By name, in the order of :data:`INSTANCE_MEASURES`, shape ``(B,)``; NaN where no or every instance is key.
    """
    keys, known = known_evidence(evidence, inner)
    weights = logs.exp().masked_fill(~inner, 0.0)
    uniform = -inner.sum(dim=-1, keepdim=True).double().log()
    heavy = keys & (logs > uniform + _NOISE)
    found = {
        "key_mass": (weights * keys).sum(dim=-1),
        "effective_instances": effective_tokens(weights),
        "key_rate": keys.sum(dim=-1) / known.sum(dim=-1),
        "covered": heavy.sum(dim=-1) / keys.sum(dim=-1),
    }
    undefined = ~mixed(keys, known)
    spread = {name: value.masked_fill(undefined, torch.nan) for name, value in found.items()}
    return ranked_measures(logs, evidence, inner) | spread


def aopc_r(p_ranked: Tensor, p_random: Tensor) -> Tensor:
    """Area over the perturbation curve of a ranking, less that of random orders of the same bag.

    The probability of the full bag cancels out. Source: Early, Evans and Ramchurn, ICLR 2022,
    https://arxiv.org/abs/2201.11701, section 4.2.

    Args:
        p_ranked: Probability of the explained class without the best-ranked instances, for each of K steps, ``(B, K)``.
        p_random: The same for each of R random orders, shape ``(B, R, K)``.

    Returns:
        Shape ``(B,)``, in [-1, 1]; higher is more faithful, 0 is what a random ranking gets.
    """
    return p_random.mean(dim=(1, 2)) - p_ranked.mean(dim=-1)
