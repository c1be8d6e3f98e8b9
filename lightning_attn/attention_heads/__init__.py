"""Which attention heads of a transformer are important: statistics on parsed sentences, criteria, and a picture."""

from lightning_attn.attention_heads.alignment import AlignedBatch, AlignedTexts, align
from lightning_attn.attention_heads.criteria import (
    Criterion,
    Positional,
    Syntactic,
    important_heads,
    random_heads,
    reasons,
)
from lightning_attn.attention_heads.figure import heads_figure
from lightning_attn.attention_heads.statistics import DIRECTIONS, HeadStatistics, head_statistics

__all__ = [
    "DIRECTIONS",
    "AlignedBatch",
    "AlignedTexts",
    "Criterion",
    "HeadStatistics",
    "Positional",
    "Syntactic",
    "align",
    "head_statistics",
    "heads_figure",
    "important_heads",
    "random_heads",
    "reasons",
]
