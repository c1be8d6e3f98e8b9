"""Agreement of scores with human or planted evidence, text by text.

Plausibility (agreement with people) is not faithfulness (agreement with the model): never average the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.perturbation.variants import ranks
from lightning_attn.types import Batch


def evidence_of(batch: Batch) -> Tensor:
    """``batch.evidence``, shape ``(B, L)``.

    Raises:
        InputError: The data have none.
    """
    if batch.evidence is None:
        raise InputError("Plausibility metrics need evidence, but the data have none; leave them out of the metrics.")
    return batch.evidence


def known_evidence(evidence: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
    """What the plausibility metrics read.

    Args:
        evidence: In [0, 1], NaN where unknown, shape ``(B, L)``.
        inner: ``Batch.inner``, shape ``(B, L)``.

    Returns:
        Which positions are evidence (any above 0), and which count at all (inner and known), each ``(B, L)``, bool.
    """
    known = inner & ~evidence.isnan()
    return known & (evidence > 0), known


def at_least(scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """For every position, how many counted ones score at least as high and how many higher, each ``(B, L)``.

    Args:
        scores: Finite where counted, shape ``(B, L)``.
        counted: Shape ``(B, L)``, bool.
    """
    ordered = scores.masked_fill(~counted, -torch.inf).sort(dim=-1).values
    length, scores = scores.shape[-1], scores.contiguous()
    return (
        length - torch.searchsorted(ordered, scores),
        length - torch.searchsorted(ordered, scores, right=True),
    )


def auprc(scores: Tensor, evidence: Tensor, inner: Tensor, trapezoid: bool = False) -> Tensor:
    """Average precision of the scores for the evidence: area under the stepwise precision-recall curve.

    Args:
        scores: Finite, shape ``(B, L)``.
        evidence: See :func:`known_evidence`.
        inner: See :func:`known_evidence`.
        trapezoid: Whether to draw straight lines between the points of the curve, from precision 1 at recall 0, as the
            code of ERASER and ferret does; the area is larger as a rule.

    Returns:
        Shape ``(B,)``, in [0, 1], equal to ``sklearn.metrics.average_precision_score``, or to ``auc`` of
        ``precision_recall_curve`` for trapezoids; NaN where no position or every position is evidence.
    """
    positive, known = known_evidence(evidence, inner)
    hits, higher_hits = at_least(scores, positive)
    taken, higher = at_least(scores, known)
    precision = hits / taken
    if trapezoid:  # each position of the evidence stands for a step of recall, from the point before to its own
        before = torch.where(higher > 0, higher_hits / higher.clamp(min=1), 1.0)
        precision = (precision + before) / 2
    precision = precision.masked_fill(~positive, 0.0)
    count = positive.sum(dim=-1)
    return (precision.sum(dim=-1) / count).masked_fill(~mixed(positive, known), torch.nan)


def auroc(scores: Tensor, evidence: Tensor, inner: Tensor) -> Tensor:
    """Chance that a position of the evidence scores above another one, ties counted half.

    Args:
        scores: Finite, shape ``(B, L)``.
        evidence: See :func:`known_evidence`.
        inner: See :func:`known_evidence`.

    Returns:
        Shape ``(B,)``, in [0, 1]; NaN where no position or every position is evidence.
    """
    positive, known = known_evidence(evidence, inner)
    negatives = (known & ~positive).sum(dim=-1)
    as_high, higher = at_least(scores, known & ~positive)
    wins = (negatives[:, None] - (as_high + higher) / 2).masked_fill(~positive, 0.0)
    pairs = positive.sum(dim=-1) * negatives
    return (wins.sum(dim=-1) / pairs).masked_fill(~mixed(positive, known), torch.nan)


def mixed(positive: Tensor, known: Tensor) -> Tensor:
    """Texts with both kinds of positions, shape ``(B,)``."""
    return positive.any(dim=-1) & (known & ~positive).any(dim=-1)


def predicted_evidence(scores: Tensor, evidence: Tensor, inner: Tensor, fraction: float | None = None) -> Tensor:
    """The top-scoring positions, as many as the text has evidence, or a fraction of it; shape ``(B, L)``, bool.

    Args:
        scores: Shape ``(B, L)``; ties go to the earlier position.
        evidence: See :func:`known_evidence`.
        inner: See :func:`known_evidence`.
        fraction: Share of the known positions to take, at least one; ERASER takes the mean length of the evidence of
            the data set. None takes the text's own amount of evidence.
    """
    positive, known = known_evidence(evidence, inner)
    own = positive.sum(dim=-1)
    count = own if fraction is None else (known.sum(dim=-1) * fraction).round().long().clamp(min=1)
    order = scores.masked_fill(~known, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return (order.argsort(dim=-1) < count[:, None]) & known


def token_f1(scores: Tensor, evidence: Tensor, inner: Tensor, fraction: float | None = None) -> Tensor:
    """F1 of the top-scoring positions against the evidence.

    Args:
        scores: See :func:`predicted_evidence`.
        evidence: See :func:`known_evidence`.
        inner: See :func:`known_evidence`.
        fraction: See :func:`predicted_evidence`.

    Returns:
        Shape ``(B,)``, in [0, 1]; NaN for texts without evidence.

    Source: DeYoung et al., ERASER, ACL 2020, https://aclanthology.org/2020.acl-main.408
    """
    positive, _ = known_evidence(evidence, inner)
    predicted = predicted_evidence(scores, evidence, inner, fraction)
    hits = (positive & predicted).sum(dim=-1)
    total = positive.sum(dim=-1) + predicted.sum(dim=-1)
    return (2 * hits / total).masked_fill(~positive.any(dim=-1), torch.nan)


def spans(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Runs of marked positions.

    Args:
        marked: Shape ``(B, L)``, bool.

    Returns:
        The number of the run that a position belongs to, from 0, ``L`` outside any, shape ``(B, L)``; and the length
        of each run, 0 for numbers that no run has, shape ``(B, L + 1)`` with a last column that means nothing.
    """
    length = marked.shape[-1]
    starts = marked & ~torch.nn.functional.pad(marked, (1, 0))[:, :-1]
    number = torch.where(marked, starts.cumsum(dim=-1) - 1, length)
    sizes = number.new_zeros(len(marked), length + 1).scatter_add(-1, number, marked.long())
    return number, sizes


def span_matches(
    scores: Tensor, evidence: Tensor, inner: Tensor, fraction: float | None = None, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Precision and recall of predicted spans; ``iou_f1`` is the F1 of their means over texts.

    A predicted span (a run of top-scoring positions) is a hit if its intersection over union with some span of the
    evidence reaches the threshold.

    Args:
        scores: See :func:`predicted_evidence`.
        evidence: See :func:`known_evidence`.
        inner: See :func:`known_evidence`.
        fraction: See :func:`predicted_evidence`.
        threshold: In (0, 1].

    Returns:
        Hits over predicted spans, hits over spans of the evidence, each ``(B,)``; NaN for texts without evidence.

    Source: DeYoung et al., ERASER, ACL 2020, and the scorer published with it.
    """
    positive, _ = known_evidence(evidence, inner)
    predicted = predicted_evidence(scores, evidence, inner, fraction)
    run, sizes = spans(predicted)
    gold, gold_sizes = spans(positive)
    # Two runs overlap in one run again: its size is the intersection.
    shared, shared_sizes = spans(predicted & positive)
    intersection = shared_sizes.gather(-1, shared)
    iou = intersection / (sizes.gather(-1, run) + gold_sizes.gather(-1, gold) - intersection).clamp(min=1)
    hit = (predicted & positive) & (iou >= threshold)
    hits = torch.zeros_like(sizes).scatter_reduce(-1, run, hit.long(), "amax")[:, :-1].sum(dim=-1)
    undefined = ~positive.any(dim=-1)
    precision = hits / (sizes[:, :-1] > 0).sum(dim=-1)
    recall = hits / (gold_sizes[:, :-1] > 0).sum(dim=-1)
    return precision.masked_fill(undefined, torch.nan), recall.masked_fill(undefined, torch.nan)


def f1(precision: Tensor, recall: Tensor) -> Tensor:
    """Harmonic mean, 0 where both are 0."""
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total.where(total > 0, 1.0), total)


def answer_recall(scores: Tensor, batch: Batch, k: int = 20) -> tuple[Tensor, Tensor]:
    """How many tokens of the answer are among the k best-ranked ones, and how many there are.

    Question and context are ranked together, special tokens left out; ties go to the earlier position. Source: what the
    code of Mask-LRP calls precision@20, which is a recall.

    Args:
        scores: Importance of each position, shape ``(B, L)``.
        batch: Its evidence is 1 on the tokens of the answer.
        k: Tokens that count as found, at least 1.

    Returns:
        Two whole numbers an example, each of shape ``(B,)``; their sums over the examples make the recall, and
        higher is better.

    Raises:
        InputError: The batch has no evidence, or k is below 1.
    """
    if batch.evidence is None:
        raise InputError("answer_recall needs a batch whose evidence marks the answer.")
    if k < 1:
        raise InputError(f"answer_recall needs a k of at least 1, not {k}.")
    answer = (batch.evidence == 1) & batch.inner
    return (answer & (ranks(scores, batch) < k)).sum(dim=-1), answer.sum(dim=-1)
