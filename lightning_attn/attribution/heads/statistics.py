"""What each attention head of a transformer looks at in parsed sentences: `head_statistics`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lightning_attn.attribution.heads.alignment import AlignedBatch, AlignedTexts
from lightning_attn.data.encoded import Array
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.self_attention import Attend, Projections
from lightning_attn.ops.evaluation import evaluating

#: From which of the two words of a dependency an attention head is watched, and whether it looks at the other one.
DIRECTIONS = ("to_head", "to_dependent")
_LONG = 16  # batches; fewer are read before a bar could be


@dataclass
class HeadStatistics:
    """Counts over sentences, for N layers of M attention heads, R relations and the two :data:`DIRECTIONS`.

    An attention head looks at the token that gets most of its weight.

    Attributes:
        relations: Names.
        arcs: Dependencies of each relation, shape ``(R,)``, int64.
        hits: How often the head that is at the first token of one word looks at a token of the other one, shape
            ``(2, R, N, M)``, int64.
        baseline: Share of hits of whatever always looks a certain number of tokens ahead or back, the best such
            number, shape ``(2, R)``, float64; NaN where a relation has no dependency.
        baseline_offset: That number, shape ``(2, R)``, int64.
        offset: How many tokens ahead (or back, negative) each attention head looks most often, shape ``(N, M)``, int64.
        offset_share: How often, shape ``(N, M)``, float64, in [0, 1].
        sentences: Number of sentences.
        tokens: Number of tokens that were looked from, special ones left out.
    """

    relations: tuple[str, ...]
    arcs: Tensor
    hits: Tensor
    baseline: Tensor
    baseline_offset: Tensor
    offset: Tensor
    offset_share: Tensor
    sentences: int
    tokens: int

    @property
    def accuracy(self) -> Tensor:
        """Share of hits, shape ``(2, R, N, M)``, float64; NaN where a relation has no dependency."""
        return self.hits.double() / self.arcs[:, None, None]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file, shares to four digits; None where a relation has no dependency."""
        relations: dict[str, dict[str, Any]] = {}
        for number, name in enumerate(self.relations):
            relations[name] = {"dependencies": int(self.arcs[number])}
            for direction, label in enumerate(DIRECTIONS):
                relations[name][label] = {
                    "baseline": _rounded(self.baseline[direction, number]),
                    "baseline_offset": int(self.baseline_offset[direction, number]),
                    "accuracy": _rounded(self.accuracy[direction, number]),
                }
        return {
            "sentences": self.sentences,
            "tokens": self.tokens,
            "relations": relations,
            "offset": self.offset.tolist(),
            "offset_share": _rounded(self.offset_share),
        }


def _rounded(values: Tensor) -> Any:
    if values.dim() == 0:
        return None if values.isnan() else round(float(values), 4)
    return [_rounded(value) for value in values]


def head_statistics(
    network: TransformerModel,
    aligned: AlignedTexts,
    max_tokens: int = 8192,
    ignore_special: bool = False,
    progress: bool = False,
) -> HeadStatistics:
    """Read sentences once and count where every attention head looks, see :class:`HeadStatistics`.

    Method: Mask-LRP's choice of important attention heads (Findings of EACL 2024, https://arxiv.org/abs/2401.09972, and
    its code), with hits counted by position, not by the text of the word. The baseline is that of Voita et al., ACL
    2019, https://aclanthology.org/P19-1580, counted in tokens as the hits are: **reconstructed**.

    Args:
        network: In any mode; it is read in evaluation mode.
        aligned: At least one sentence, none longer than the network can read.
        max_tokens: Positions read at once, padding included.
        ignore_special: Whether to leave special tokens out of what can be looked at (Voita et al. leave out the end of
            the sentence; Mask-LRP leaves nothing out).
        progress: Whether to show a bar on the standard error stream.
    """
    device = network.model.device
    lengths = aligned.texts.lengths
    counts = _Counts(network, len(aligned.relations), int(lengths.max()), device)
    batches = list(_batches(lengths, max_tokens))
    tracked = track(
        batches,
        "Reading the sentences",
        console=Console(stderr=True),
        transient=True,
        disable=not progress or len(batches) < _LONG,
    )
    with torch.no_grad(), evaluating(network):
        for rows in tracked:
            counts.add(aligned.batch(rows), ignore_special)
    return counts.result(aligned)


def _batches(lengths: Array, max_tokens: int) -> Iterator[Array]:
    """Rows of about equal lengths, the longest first."""
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        count = max(1, max_tokens // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count


class _Look(Attend):
    """Leaves self-attention as it is, and keeps which position each query looks at, by layer, ``(B, M, L)``."""

    def __init__(self, hidden: Tensor | None) -> None:
        super().__init__()
        self.hidden = hidden
        self.seen: list[Tensor] = []

    def attend(self, layer: int, projections: Projections) -> Tensor:
        scores = projections.scores()
        context = scores.softmax(dim=-1) @ projections.value
        if self.hidden is not None:
            scores = scores.masked_fill(self.hidden[:, None, None], torch.finfo(scores.dtype).min)
        self.seen.append(scores.argmax(dim=-1))
        return context


class _Counts:
    """Sums over batches."""

    def __init__(self, network: TransformerModel, relations: int, longest: int, device: torch.device) -> None:
        self.network = network
        self.device = device
        self.longest = longest
        width, heads = 2 * longest - 1, network.depth * network.heads_per_layer
        self.arcs = torch.zeros(relations, dtype=torch.int64, device=device)
        self.hits = torch.zeros(2, relations, heads, dtype=torch.int64, device=device)
        self.distances = torch.zeros(2, relations * width, dtype=torch.int64, device=device)
        self.offsets = torch.zeros(heads * width, dtype=torch.int64, device=device)
        self.tokens = 0

    def add(self, part: AlignedBatch, ignore_special: bool) -> None:
        batch, words = part.batch.to(self.device), part.words.to(self.device)
        row, relation = part.row.to(self.device), part.relation.to(self.device)
        look = _Look(batch.special if ignore_special else None)
        self.network.run(self.network.embed(batch), batch, look)
        seen = torch.cat(look.seen, dim=1)  # (B, heads of all layers, L)
        self._add_offsets(seen, batch.inner)
        self.arcs += torch.bincount(relation, minlength=len(self.arcs))
        pair = part.dependent.to(self.device), part.head.to(self.device)
        for number, (watched, other) in enumerate((pair, pair[::-1])):
            here = (words[row] == watched[:, None]).int().argmax(dim=-1)  # the first of the word's tokens
            target = words[row] == other[:, None]
            hit = target.gather(1, seen[row, :, here])
            self.hits[number].index_add_(0, relation, hit.long())
            arc, place = target.nonzero(as_tuple=True)
            distance = place - here[arc] + self.longest - 1 + relation[arc] * (2 * self.longest - 1)
            self.distances[number] += torch.bincount(distance, minlength=self.distances.shape[1])

    def _add_offsets(self, seen: Tensor, inner: Tensor) -> None:
        positions = torch.arange(seen.shape[-1], device=seen.device)
        first = torch.arange(seen.shape[1], device=seen.device)[:, None] * (2 * self.longest - 1)
        index = seen - positions + self.longest - 1 + first
        counted = index[inner[:, None].expand_as(index)]
        self.offsets += torch.bincount(counted, minlength=len(self.offsets))
        self.tokens += int(inner.sum())

    def result(self, aligned: AlignedTexts) -> HeadStatistics:
        width, shape = 2 * self.longest - 1, (self.network.depth, self.network.heads_per_layer)
        distances, offsets = self.distances.cpu().view(2, -1, width), self.offsets.cpu().view(-1, width)
        common, place = distances.max(dim=-1)
        share, offset = offsets.max(dim=-1)
        arcs = self.arcs.cpu()
        return HeadStatistics(
            relations=aligned.relations,
            arcs=arcs,
            hits=self.hits.cpu().view(2, len(arcs), *shape),
            baseline=common.double() / arcs,
            baseline_offset=place - self.longest + 1,
            offset=(offset - self.longest + 1).view(shape),
            offset_share=(share.double() / max(1, self.tokens)).view(shape),
            sentences=len(aligned),
            tokens=self.tokens,
        )
