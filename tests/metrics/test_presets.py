"""Each preset gives the figure that its source would: by hand on one text, and by a slow reference on others."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from lightning_attn.attention import AdditiveAttention
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.errors import InputError
from lightning_attn.metrics import ERASURE, MEASURES, PRESETS, Preset, Settings, get_preset, measure
from lightning_attn.metrics.functional import auprc, auroc, token_f1
from lightning_attn.networks import AttentionNetwork
from lightning_attn.perturbation.perturbations import Delete, Pad, Replace
from lightning_attn.types import Batch, DataSchema
from tests.helpers.toys import alone, toy_batch, toy_network

ALL = tuple(f"faithfulness/{name}" for name in ERASURE)
LOO = "faithfulness/kendall_loo"


class Sum(AttentionNetwork):
    """Class 1 has a probability of 0.2 and what its tokens add; token ids are the places in this list."""

    def __init__(self, adds: list[float]) -> None:
        super().__init__()
        self.adds = nn.Parameter(torch.tensor(adds))
        self.attention = AdditiveAttention()

    def make_layers(self, schema: DataSchema) -> None:
        self.attention.make_layers(1)

    def embed(self, batch: Batch) -> Tensor:
        return self.adds[batch.inputs][..., None]

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(embeddings), embeddings

    def classify(self, values: Tensor, attention: Tensor, batch: Batch) -> Tensor:
        p = 0.2 + (values.squeeze(-1) * batch.valid).sum(dim=-1)
        return torch.stack([1 - p, p], dim=-1).log()


def text(adds: list[float], gold: int = 1) -> tuple[Sum, Batch]:
    """A text whose inner tokens add these numbers, between two special ones; padding that is read adds 0.01."""
    network = Sum([0.01, 0.0, *adds]).build(DataSchema(num_classes=2, vocabulary_size=len(adds) + 2))
    ids = torch.tensor([[1, *range(2, len(adds) + 2), 1]])
    valid = torch.ones_like(ids, dtype=torch.bool)
    return network.eval(), Batch(ids, valid, ids == 1, torch.tensor([gold]), torch.tensor([0]))


def figures(network: AttentionNetwork, batch: Batch, scores: Tensor, preset: str | Preset) -> dict[str, Tensor]:
    settings = Settings(preset=get_preset(preset), max_tokens=64)
    names = [*ALL, LOO]
    return {name.split("/")[1]: value for name, value in measure(network, batch, names, settings, scores)[0].items()}


# 18 tokens in the order of their ranks. The best adds .3, the third .2, the sixth takes .1, the tenth adds .1, the last
# .05: p(x) = .75. The first six have a positive score, the others a negative one. T = 20 with the special tokens.
ADDS = [0.3, 0, 0.2, 0, 0, -0.1, 0, 0, 0, 0.1, 0, 0, 0, 0, 0, 0, 0, 0.05]
SCORES = [6.0, 5, 4, 3, 2, 1, *range(-1, -13, -1)]
#: p after the removals of 2, 4, 7, 9, 11, 13, 16, 18 and 18 of them, the last two of 17 where the last is spared.
PADDED = [0.47, 0.29, 0.42, 0.44, 0.36, 0.38, 0.41]
DELETED = [0.45, 0.25, 0.35, 0.35, 0.25, 0.25, 0.25, 0.20, 0.20]


def log_mean(values: list[float], full: float) -> float:
    return sum(math.log(value / full) for value in values) / len(values)


BY_HAND = {
    # drops .28 .46 .33 .31 .39 .37 .34 .33 .33, of the gold class
    "mask_lrp": {"aopc": 3.14 / 9, "log_odds": log_mean([*PADDED, 0.42, 0.42], 0.75)},
    # the last two without the last token: .37
    "attcat": {"aopc": 3.22 / 9, "log_odds": log_mean([*PADDED, 0.38, 0.38], 0.75)},
    # drops .3 .5 .4 .4 .5 .5 .5 .55 .55
    "attcat_delete": {"aopc": 4.2 / 9, "log_odds": log_mean(DELETED, 0.75)},
    "contrast_cat": {"aopc": 4.2 / 9, "log_odds": log_mean(DELETED, 0.75)},
    # 1, 1, 2, 4 and 9 of 18 tokens: drops .3 .3 .3 .5 .4; of what is kept .25 .25 .25 .05 .15
    "eraser": {"comprehensiveness": 1.8 / 5, "sufficiency": 0.95 / 5, "aopc": 1.8 / 5},
    # floors 1, 3, 5, 7 and more, of which six have a positive score: drops .3 .5 .5 .4, kept .25 .05 .05 .15
    "ferret": {"comprehensiveness": 1.7 / 4, "sufficiency": 0.5 / 4, "aopc": 1.7 / 4},
    # 2, 4, ... 18 of 18: drops .3 .5 .4 .4 .5 .5 .5 .5 .55
    "ours": {"comprehensiveness": 1.8 / 5, "sufficiency": 0.95 / 5, "aopc": 4.15 / 9},
    "jain_wallace": {"comprehensiveness": 1.8 / 5},
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_what_was_worked_out_by_hand(name: str) -> None:
    network, batch = text(ADDS)
    scores = torch.tensor([[0.0, *SCORES, 0.0]])
    found = figures(network, batch, scores, name)
    for measured, value in BY_HAND[name].items():
        assert found[measured].item() == pytest.approx(value, abs=1e-5), measured


def test_only_the_sources_that_say_so_explain_the_gold_class() -> None:
    scores = torch.tensor([[0.0, *SCORES, 0.0]])
    expected = {"mask_lrp": -3.14 / 9, "attcat": 3.22 / 9, "attcat_delete": 4.2 / 9, "contrast_cat": 4.2 / 9}
    for name, value in expected.items():  # the gold class 0 gains what the predicted one loses; AttCAT takes no sign
        assert figures(*text(ADDS, gold=0), scores, name)["aopc"].item() == pytest.approx(value, abs=1e-5), name
    network, batch = text(ADDS)
    zero = dataclasses.replace(PRESETS["ferret"], explained=0)
    assert figures(network, batch, scores, zero)["comprehensiveness"].item() == pytest.approx(-1.7 / 4, abs=1e-5)


def test_leave_one_out_is_absolute_but_for_ferret() -> None:
    # in the order of falling scores, for the predicted class 0: absolute .1 .0 .2 .25 (1 pair of 6 agrees with them),
    # signed -.1 .0 -.2 .25 (2 of 6)
    network, batch = text([0.1, 0.0, 0.2, -0.25])
    scores = torch.tensor([[0.0, 4, 3, 2, 1, 0.0]])
    for name in PRESETS:
        tau = figures(network, batch, scores, name)["kendall_loo"].item()
        assert tau == pytest.approx(-1 / 3 if name == "ferret" else -2 / 3), name


def test_ferret_without_a_positive_token() -> None:
    network, batch = text(ADDS)
    found = figures(network, batch, torch.tensor([[0.0, *[-1.0] * 18, 0.0]]), "ferret")
    assert [found[name].item() for name in ERASURE] == [0, 1, 0, 0]


@pytest.mark.parametrize(("name", "least"), [("mask_lrp", 20), ("attcat", 10), ("contrast_cat", 10), ("ours", 4)])
def test_short_texts_are_left_out(name: str, least: int) -> None:
    for length in (least - 1, least):
        network, batch = text(([0.1] * 2 + [0.0] * length)[: length - 2])
        found = figures(network, batch, torch.ones(1, length), name)
        assert all(found[measured].isnan().item() == (length < least) for measured in ERASURE)
    for name in ("eraser", "ferret", "jain_wallace"):
        network, batch = text([0.1])
        found = figures(network, batch, torch.ones(1, 3), name)
        assert not any(found[measured].isnan().item() for measured in ERASURE)


def test_options_of_log_odds_and_ranking() -> None:
    network, batch = text(ADDS)
    scores = torch.tensor([[0.0, *SCORES, 0.0]])
    odds = dataclasses.replace(PRESETS["attcat_delete"], true_odds=True)
    expected = log_mean([p / (1 - p) for p in DELETED], 3.0)
    assert figures(network, batch, scores, odds)["log_odds"].item() == pytest.approx(expected, abs=1e-5)
    absolute = dataclasses.replace(PRESETS["eraser"], ranking="absolute")
    negated = figures(network, batch, torch.tensor([[0.0, *np.linspace(-9, -1, 18).tolist(), 0.0]]), absolute)
    assert negated["comprehensiveness"].item() == pytest.approx(1.8 / 5, abs=1e-5)


# The rules again, in a loop over texts and budgets that shares nothing with the package.
RULES = {
    "ours": {"class": "predicted", "grid": "ours", "least": ("inner", 2)},
    "eraser": {"class": "predicted", "grid": "fractions"},
    "ferret": {"class": "predicted", "grid": "floors", "positive": True, "distinct": True},
    "mask_lrp": {"class": "gold", "grid": "ninths", "pad": True, "spare": True, "least": ("whole", 20)},
    "attcat": {"class": "gold", "grid": "ninths", "pad": True, "absolute": True, "least": ("whole", 10)},
    "attcat_delete": {"class": "gold", "grid": "ninths", "absolute": True, "least": ("whole", 10)},
    "contrast_cat": {"class": "predicted", "grid": "ninths", "least": ("whole", 10)},
    "jain_wallace": {"class": "predicted", "grid": "ours", "every": True},
}


def classes(network: AttentionNetwork, ids: list[int], special: list[bool]) -> np.ndarray:
    one = Batch(
        torch.tensor([ids]),
        torch.ones(1, len(ids), dtype=torch.bool),
        torch.tensor([special]),
        torch.tensor([0]),
        torch.tensor([0]),
    )
    with torch.no_grad():
        return network(one).logits.double().softmax(-1)[0].numpy()


def slow(network: AttentionNetwork, batch: Batch, scores: Tensor, row: int, rules: dict) -> dict[str, float]:
    length = int(batch.valid[row].sum())
    ids, special = batch.inputs[row, :length].tolist(), batch.special[row, :length].tolist()
    values = [0.0 if special[i] else scores[row, i].item() for i in range(length)]
    order = sorted((i for i in range(length) if not special[i]), key=lambda i: -values[i])
    n = len(order)
    kind, least = rules.get("least", ("inner", 0))
    if (n if kind == "inner" else length) < least:
        return dict.fromkeys(ERASURE, math.nan)
    full = classes(network, ids, special)
    c = int(batch.target[row]) if rules["class"] == "gold" else int(full.argmax())
    last = sorted(range(length), key=lambda i: -values[i])[-1]
    fractions = [max(1, math.ceil(round(f * n, 9))) for f in (0.01, 0.05, 0.1, 0.2, 0.5)]
    grids = {
        "ours": (fractions, [round(j / 9 * n) for j in range(1, 10)]),
        "fractions": (fractions, fractions),
        "floors": ([j * n // 10 for j in range(1, 11)],) * 2,
        "ninths": ([round(j / 9 * length) for j in range(1, 10)],) * 2,
    }[rules["grid"]]
    cap = n if any(special) else n - 1
    found = {}
    for measured in ERASURE:
        effects, before = [], 0
        for k in grids[measured in ("aopc", "log_odds")]:
            taken = order[: min(k, cap)]
            if rules.get("positive"):
                taken = [i for i in taken if values[i] > 0]
            if rules.get("spare"):
                taken = [i for i in taken if i != last]
            if rules.get("distinct") and len(taken) in (0, before):
                continue
            before = len(taken)
            gone = [i for i in order if i not in taken] if measured == "sufficiency" else taken
            if rules.get("pad"):
                p = classes(network, [0 if i in gone else t for i, t in enumerate(ids)], special)
            else:
                rest = [i for i in range(length) if i not in gone]
                p = classes(network, [ids[i] for i in rest], [special[i] for i in rest])
            if measured == "log_odds":
                effects.append(math.log(p[c] / full[c]))
            elif rules.get("every"):
                effects.append(np.abs(full - p).mean())
            else:
                drop = full[c] - p[c]
                effects.append(abs(drop) if rules.get("absolute") else drop)
        found[measured] = float(np.mean(effects)) if effects else float(measured == "sufficiency")
    return found


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_a_loop_over_texts(name: str, special: bool) -> None:
    lengths = (21, 20, 12, 19, 10, 5, 3)
    batch = toy_batch(lengths=lengths, classes=3, special=special, pad_to=24)
    network = toy_network(classes=3)
    scores = torch.randn(batch.valid.shape, generator=torch.Generator().manual_seed(1))
    scores[5] = -scores[5].abs()  # nothing positive
    scores[2] = (scores[2] * 2).round() / 2  # ties
    scores = scores.masked_fill(~batch.inner, 0.0)
    found = figures(network, batch, scores, name)
    for row in range(len(lengths)):
        expected = slow(network, batch, scores, row, RULES[name])
        single = figures(network, alone(batch, row), scores[row : row + 1, : lengths[row]], name)
        for measured, value in expected.items():
            assert found[measured][row].item() == pytest.approx(value, abs=1e-5, nan_ok=True), measured
            assert single[measured][0].item() == pytest.approx(value, abs=1e-5, nan_ok=True), measured


def test_ours_is_what_is_measured_without_a_preset() -> None:
    batch, network = toy_batch(lengths=(9, 1, 14), evidence=True), toy_network()
    names = tuple(name for name in MEASURES if "adversarial" not in name)
    plain, named = (
        measure(network, batch, names, settings)[0] for settings in (None, Settings(preset=PRESETS["ours"]))
    )
    for name in names:
        torch.testing.assert_close(plain[name], named[name], rtol=0, atol=0, equal_nan=True)


def test_the_attention_is_measured_if_no_scores_are_given() -> None:
    batch, network = toy_batch(lengths=(21, 23), special=True), toy_network()
    with torch.no_grad():
        attention = network(batch).attention
    for name in PRESETS:
        settings = Settings(preset=PRESETS[name])
        implicit, _ = measure(network, batch, ALL, settings)
        explicit, _ = measure(network, batch, ALL, settings, attention)
        for measured in ALL:
            torch.testing.assert_close(implicit[measured], explicit[measured])


def test_attention_of_zero_is_nothing_positive() -> None:
    batch, network = toy_batch(lengths=(10,)), toy_network()
    weights = torch.zeros(1, 10)
    weights[0, 4] = 1.0
    preset = PRESETS["ferret"]
    found, _ = measure(network, batch, ALL, Settings(preset=preset), weights)
    keep = [i for i in range(10) if i != 4]
    full, rest = (classes(network, batch.inputs[0, rows].tolist(), [False] * len(rows)) for rows in (range(10), keep))
    expected = full.max() - rest[full.argmax()]
    assert found["faithfulness/comprehensiveness"].item() == pytest.approx(expected, abs=1e-5)
    taken = preset.taken(weights, batch, torch.tensor([[0, 1, 9]]))
    assert taken.sum(dim=-1).tolist() == [[0, 1, 1]]


def test_another_perturbation_goes_before_that_of_the_preset() -> None:
    batch, network = toy_batch(lengths=(21,), special=True), toy_network()
    for perturbation in (Replace(), Delete(), Pad()):
        one = Settings(preset=PRESETS["attcat"], perturbation=perturbation)
        other = Settings(preset=dataclasses.replace(PRESETS["attcat"], perturbation=perturbation))
        first, second = (measure(network, batch, ALL, settings)[0] for settings in (one, other))
        for name in ALL:
            assert torch.equal(first[name], second[name])


def test_scores_replace_the_attention_in_correlations_and_plausibility() -> None:
    batch, network = toy_batch(lengths=(9, 7), evidence=True), toy_network()
    scores = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    names = [LOO, "faithfulness/kendall_gradient", "plausibility/auprc", "plausibility/auroc", "plausibility/token_f1"]
    found, _ = measure(network, batch, names, scores=scores)
    for name, function in (("auprc", auprc), ("auroc", auroc), ("token_f1", token_f1)):
        expected = function(scores, batch.evidence, batch.inner)
        torch.testing.assert_close(found[f"plausibility/{name}"], expected, equal_nan=True)
    gradient = embedding_gradient(network, batch).product.abs()
    tau = kendalltau(scores[0].numpy(), gradient[0].detach().numpy()).statistic
    assert found["faithfulness/kendall_gradient"][0].item() == pytest.approx(tau, abs=1e-6)
    full = classes(network, batch.inputs[0].tolist(), [False] * 9)
    loo = []
    for i in range(9):
        rest = [token for j, token in enumerate(batch.inputs[0].tolist()) if j != i]
        loo.append(np.abs(classes(network, rest, [False] * 8) - full).mean())
    assert found[LOO][0].item() == pytest.approx(kendalltau(scores[0].numpy(), loo).statistic, abs=1e-6)


def test_the_trapezoid_is_that_of_the_preset() -> None:
    batch, network = toy_batch(lengths=(9, 7), evidence=True), toy_network()
    name = "plausibility/auprc"
    stepwise, trapezoid = (
        measure(network, batch, [name], Settings(preset=PRESETS[preset]))[0][name] for preset in ("ours", "eraser")
    )
    assert not torch.equal(stepwise, trapezoid)


def test_wrong_presets_are_refused() -> None:
    with pytest.raises(InputError, match=r"no preset 'lime'; the presets are attcat, .*, eraser, ferret"):
        get_preset("lime")
    with pytest.raises(InputError, match="no ranking 'best'; choose from signed, absolute, positive_only"):
        Preset(ranking="best")
    batch, network = toy_batch(lengths=(21,)), toy_network()
    with pytest.raises(InputError, match="no class 2 to explain: there are 2"):
        measure(network, batch, ALL, Settings(preset=Preset(explained=2)))
    several, many = toy_batch(lengths=(21,), multi_label=True), toy_network(multi_label=True)
    with pytest.raises(InputError, match="explains the gold class"):
        measure(many, several, ALL, Settings(preset=PRESETS["mask_lrp"]))


def test_choices_can_be_noted_beside_the_figures() -> None:
    assert PRESETS["ferret"].describe() == {
        "explained": "predicted",
        "perturbation": {"Delete": {}},
        "ranking": "positive_only",
        "budget": {"FlooredFractions": {"fractions": tuple(j / 10 for j in range(1, 11))}},
        "curve": {"FlooredFractions": {"fractions": tuple(j / 10 for j in range(1, 11))}},
        "change": "signed_drop",
        "leave_one_out": "signed_drop",
        "averaging": "distinct",
        "least_tokens": 0,
        "count_special": False,
        "chunks": 1,
        "true_odds": False,
        "trapezoid": True,
    }
