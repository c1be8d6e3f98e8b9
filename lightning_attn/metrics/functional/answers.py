"""Measures of answers that are spans of a text: recall of the answer among the top-ranked tokens."""

from __future__ import annotations

from torch import Tensor

from lightning_attn.perturbation.sweep import ranks
from lightning_attn.types import Batch


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
        ValueError: The batch has no evidence, or k is below 1.
    """
    if batch.evidence is None:
        raise ValueError("answer_recall needs a batch whose evidence marks the answer.")
    if k < 1:
        raise ValueError(f"answer_recall needs a k of at least 1, not {k}.")
    answer = (batch.evidence == 1) & batch.inner
    return (answer & (ranks(scores, batch) < k)).sum(dim=-1), answer.sum(dim=-1)
