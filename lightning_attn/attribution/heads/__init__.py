"""Which attention heads of a transformer are important: statistics on parsed sentences, criteria."""

from lightning_attn.attribution.heads.alignment import AlignedBatch, AlignedTexts, align
from lightning_attn.attribution.heads.criteria import (
    Criterion,
    Positional,
    Syntactic,
    important_heads,
    random_heads,
    reasons,
)
from lightning_attn.attribution.heads.heads_file import HeadsFile, read_heads, write_heads
from lightning_attn.attribution.heads.statistics import DIRECTIONS, HeadStatistics, head_statistics

__all__ = [
    "DIRECTIONS",
    "AlignedBatch",
    "AlignedTexts",
    "Criterion",
    "HeadStatistics",
    "HeadsFile",
    "Positional",
    "Syntactic",
    "align",
    "head_statistics",
    "important_heads",
    "random_heads",
    "read_heads",
    "reasons",
    "write_heads",
]
