"""Which setting of LAFA, and of its controls, agrees best with the evidence of validation texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

from lightning_attn.attribution import LAFA, Attribution, Kernel, Lexicon
from lightning_attn.attribution.lafa import (
    Nearest,
    NeighbourIndex,
    Neighbours,
    Query,
    RandomTexts,
    Reader,
    Selection,
    text_digests,
)
from lightning_attn.attribution.lafa.kernels import Cosine, Cubic, Indicator, InverseClippedDistance, Laplacian, Rbf
from lightning_attn.metrics.functional import auprc, auroc
from lightning_attn.networks import AttentionNetwork
from lightning_attn.types import Batch

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]

#: By kernel, its parameters to choose from; those of the paper are among them.
KERNELS: dict[str, dict[str, Kernel]] = {
    "rbf": {f"l = {length}": Rbf(length) for length in (0.5, 1.0, 2.0)},
    "laplacian": {f"l = {length}": Laplacian(length) for length in (1.0, 2.0, 4.0)},
    "cubic": {f"gamma = {gamma}": Cubic(gamma) for gamma in (1.0, 7.0)} | {"gamma = 1, c0 = 1": Cubic(1.0, 1.0)},
    "cosine": {"": Cosine()},
    "inverse clipped distance": {f"{low} to 3": InverseClippedDistance(low, 3.0) for low in (0.1, 0.3)},
    "indicator": {"": Indicator()},
}
STRENGTHS = (0.1, 0.25, 0.44, 1.0, 2.0, 4.0)
NEAREST: dict[str, Selection] = {
    "10 nearest, quantile 0.05": Nearest(10, 0.05),
    "10 nearest": Nearest(10, None),
    "10 nearest of the same class": Nearest(10, None, "same"),
    "50 nearest, quantile 0.39": Nearest(50, 0.39),
}
RANDOM: dict[str, Selection] = {f"{count} random texts": RandomTexts(count) for count in (10, 50)}
OTHER: dict[str, Selection] = {f"{count} nearest of other classes": Nearest(count, None, "other") for count in (10, 50)}


class Remembered(Selection):
    """Neighbours that were looked for once: they are the same for every kernel and base score.

    Args:
        kind: How they are chosen.
    """

    def __init__(self, kind: Selection) -> None:
        super().__init__(kind.max_neighbours)
        self.kind = kind
        self._known: dict[int, tuple[Query, Neighbours]] = {}

    def select(self, index: NeighbourIndex, query: Query) -> Neighbours:
        """See :meth:`Selection.select`; queries are told apart as objects, which are kept."""
        if id(query) not in self._known:
            self._known[id(query)] = query, self.kind.select(index, query)
        return self._known[id(query)][1]


@dataclass
class Setting:
    """A setting that was chosen.

    Attributes:
        method: Ready to be used.
        described: For people.
        value: What it reached on validation.
    """

    method: Attribution
    described: str
    value: float


@dataclass
class Validation:
    """What a choice is made on.

    Attributes:
        network: That is explained.
        batches: Validation texts with evidence.
        measure: Agreement of scores with evidence, one number per text, NaN where undefined.
    """

    network: AttentionNetwork
    batches: Sequence[Batch]
    measure: Measure
    _own: dict[str, list[Tensor]] = field(default_factory=dict)

    def own(self, method: LAFA) -> list[Tensor]:
        """Base scores over their sums; those of SmoothGrad cost more than all that is tuned on top of them."""
        known = str(method.index.description.base)
        if known not in self._own:
            self._own[known] = [unit(scores) for scores in self.scores(method.base)]
        return self._own[known]

    def value(self, scores: Sequence[Tensor]) -> float:
        """Mean agreement over the texts where it is defined."""
        found = []
        for batch, each in zip(self.batches, scores, strict=True):
            assert batch.evidence is not None
            found.append(self.measure(each, batch.evidence, batch.inner))
        return float(torch.cat(found).nanmean())

    def scores(self, method: Attribution) -> list[Tensor]:
        """Scores of a method."""
        return [method.attribute(self.network, batch) for batch in self.batches]

    def queries(self, layer: str) -> list[Query]:
        """The texts as a search wants them."""
        reader = Reader(self.network, layer)
        found = []
        for batch in self.batches:
            reading = reader.read(batch)
            found.append(Query(reading.vectors, text_digests(batch), reading.logits.argmax(-1), batch.index))
        return found


def pearson(scores: Tensor, evidence: Tensor, inner: Tensor) -> Tensor:
    """Correlation of scores with graded evidence over the positions where it is known, shape ``(B,)``.

    NaN where either is constant, or known at fewer than two positions.
    """
    known = inner & ~evidence.isnan()
    count = known.sum(dim=1, keepdim=True).clamp(min=1)
    centred = []
    for values in (scores.double(), evidence.double()):
        kept = values.masked_fill(~known, 0.0)
        centred.append((kept - kept.sum(dim=1, keepdim=True) / count).masked_fill(~known, 0.0))
    norms = [values.norm(dim=1) for values in centred]
    scale = [values.abs().amax(dim=1) for values in (scores, evidence.nan_to_num(0.0))]
    constant = (norms[0] <= 1e-6 * scale[0]) | (norms[1] <= 1e-6 * scale[1])
    return ((centred[0] * centred[1]).sum(dim=1) / (norms[0] * norms[1])).masked_fill(constant, torch.nan)


#: Agreement with evidence, by the name of the measure.
AGREEMENT: dict[str, Measure] = {"pearson": pearson, "auprc": auprc, "auroc": auroc}


def combined(by_layer: NeighbourIndex, by_base: NeighbourIndex) -> NeighbourIndex:
    """The vectors of one index and the scores of another, of the same network and texts."""
    base = by_base.description
    description = replace(by_layer.description, base=base.base, options=base.options)
    return replace(by_layer, description=description, scores=by_base.scores)


def unit(scores: Tensor) -> Tensor:
    """Scores over their sum of absolute values, as ``mix="normalised"`` has it."""
    return scores / scores.abs().sum(dim=1, keepdim=True).clamp(min=1e-30)


def settings(
    validation: Validation,
    indices: Mapping[tuple[str, str], NeighbourIndex],
    selections: Mapping[str, Selection],
) -> Iterator[tuple[str, Setting]]:
    """Every setting of LAFA with its value on validation, and the name of its kernel; with the best strength of each.

    Args:
        validation: What is tuned on.
        indices: By layer and base score.
        selections: Which texts are neighbours.
    """
    asked = {layer: validation.queries(layer) for layer in {layer for layer, _ in indices}}
    found: dict[tuple[str, str], Remembered] = {}
    for (layer, base), index in indices.items():
        own = validation.own(LAFA(index))
        for (chosen, kind), (kernel, kinds) in product(selections.items(), KERNELS.items()):
            selection = found.setdefault((layer, chosen), Remembered(kind))
            for parameters, made in kinds.items():
                method = LAFA(index, made, selection)
                pairs = zip(validation.batches, asked[layer], strict=True)
                lent = [unit(method.lend(validation.network, batch, query)[0]) for batch, query in pairs]
                values = {
                    strength: validation.value([a + strength * b for a, b in zip(own, lent, strict=True)])
                    for strength in STRENGTHS
                }
                best = max(values, key=lambda strength: values[strength])
                named = f"{kernel} {parameters}".strip()
                text = f"{base}, {named}, lambda {best}, {chosen}, {layer}"
                yield kernel, Setting(LAFA(index, made, kind, best), text, values[best])


def best_by_kernel(found: Iterator[tuple[str, Setting]]) -> dict[str, Setting]:
    """The best setting of each kernel."""
    best: dict[str, Setting] = {}
    for kernel, setting in found:
        if kernel not in best or setting.value > best[kernel].value:
            best[kernel] = setting
    return best


def best_lexicon(validation: Validation, indices: Mapping[tuple[str, str], NeighbourIndex]) -> Setting:
    """The best base score and strength of the global lexicon."""
    found = []
    for base, index in {base: index for (_, base), index in indices.items()}.items():
        for strength in STRENGTHS:
            method = Lexicon(index, strength)
            value = validation.value(validation.scores(method))
            found.append(Setting(method, f"{base}, lambda {strength}", value))
    return max(found, key=lambda setting: setting.value)


def best_of(validation: Validation, methods: Mapping[str, Attribution]) -> Setting:
    """The best of some methods."""
    found = [Setting(method, name, validation.value(validation.scores(method))) for name, method in methods.items()]
    return max(found, key=lambda setting: setting.value)
