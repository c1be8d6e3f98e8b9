"""Probes of the mask rank selectors of a synthetic world as theory says, and keep their promises one by one."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.evaluators import Evaluator, MaskJudge, Training
from lightning_attn.metrics.functional.leakage import attention_features, bits_gained, bootstrap_interval, leaked_bits
from lightning_attn.metrics.instances import PooledAUROC
from lightning_attn.metrics.shortcut import Probes, distinct_rows, figures, probe_rows, selected
from lightning_attn.mitigations import Uniform, UniformSubset
from lightning_attn.types import DataSchema
from tests.helpers.default_tokens import built, with_defaults
from tests.helpers.shortcut_worlds import SCHEMA, WORLDS, World, split, texts
from tests.helpers.toys import alone, toy_batch, toy_network


def judged(
    train: World, fresh: World, schema: DataSchema = SCHEMA, training: Training | None = None
) -> tuple[dict[str, float], dict[str, str]]:
    """The figures of a selector, on examples that nothing was fitted on."""
    batches, masks = split(train)
    judge = MaskJudge(schema, batches, UniformSubset(1), training)
    learnt, parts = judge.learn(masks), []
    for batch, mask in zip(*split(fresh), strict=True):
        rows = {"index": batch.index, "target": batch.target, "features": attention_features(mask, batch.inner)}
        for key, said in judge.judge(learnt, batch, mask).items():
            rows[key] = said.gather(1, batch.target[:, None]).squeeze(1)
            rows[f"{key}_right"] = (said.argmax(dim=1) == batch.target).double()
        parts.append({key: value.double().numpy() for key, value in rows.items()})
    return figures(distinct_rows(parts), ())


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    result = {}
    for name, world in WORLDS.items():
        generator = torch.Generator().manual_seed(0)
        result[name], reasons = judged(world(2000, generator), world(1000, generator))
        assert not reasons
    return result


@pytest.mark.parametrize(("length", "kinds"), [(8, 1), (8, 100), (80, 1)])
def test_an_honest_mask_encodes_nothing_or_that_is_undefined(length: int, kinds: int) -> None:
    figures_ = {}
    for encodes in (False, True):
        generator = torch.Generator().manual_seed(0)
        train, fresh = (texts(count, generator, length, kinds, encodes) for count in (1000, 400))
        figures_[encodes], reasons = judged(train[:2], fresh[:2], train[2], Training(epochs=4))
        if "encoding_bits" in reasons:
            assert "has not learned what the attended content says" in reasons["encoding_bits"]
            assert not {"encoding_bits", "encoding_bits_low", "encoding_bits_high"} & set(figures_[encodes])
    if "encoding_bits" in figures_[False]:
        assert figures_[False]["encoding_bits_low"] <= 0.0
        assert figures_[False]["encoding_bits"] < 0.1
    assert figures_[True]["encoding_bits_low"] > 0.5, "by place alone, whatever the words"


@pytest.mark.parametrize(
    ("world", "leaked", "order_free", "encoded", "accuracy"),
    [
        ("honest", 0, 0, 0, 1),
        ("by_place", 1, 0, 1, 0.5),
        ("by_number", 1, 1, 1, 0.5),
        ("marginal", 0, 0, math.log2(4 / 3), 1),
        ("idle", 0, 0, 0, 0.5),
    ],
)
def test_known_answers(found, world: str, leaked: float, order_free: float, encoded: float, accuracy: float) -> None:
    figures = found[world]
    assert figures["leaked_bits"] == pytest.approx(leaked, abs=0.03)
    assert figures["order_free_bits"] == pytest.approx(order_free, abs=0.03)
    assert figures["length_bits"] == pytest.approx(0, abs=0.02)
    assert figures["encoding_bits"] == pytest.approx(encoded, abs=0.1)
    assert figures["encoding_bits_control"] == pytest.approx(0, abs=0.02)
    assert figures["evalx_accuracy"] == pytest.approx(accuracy, abs=0.07)
    assert figures["encoding_bits_low"] <= figures["encoding_bits"] <= figures["encoding_bits_high"]
    assert figures["fano_bits"] <= figures["leaked_bits"] + 0.03


def test_probes_rank_selectors_as_theory_says(found) -> None:
    def order(name: str) -> list[str]:
        return sorted(found, key=lambda world: found[world][name])

    # Encoding, and it alone, puts the marginal encoder between those that encode nothing and those that encode all:
    # for EVAL-X it is as good as the honest one (Puli et al. 2024), and its mask by itself says nothing.
    assert set(order("encoding_bits")[:2]) == {"honest", "idle"}
    assert order("encoding_bits")[2] == "marginal"
    assert set(order("leaked_bits")[3:]) == {"by_place", "by_number"}
    assert order("order_free_bits")[-1] == "by_number"
    assert set(order("evalx_accuracy")[3:]) == {"honest", "marginal"}


def test_bits_are_those_of_the_log_loss() -> None:
    generator = np.random.default_rng(0)
    target = generator.integers(3, size=200)
    p = generator.dirichlet(np.ones(3), size=200)
    frequency = np.bincount(target) / 200
    expected = (log_loss(target, np.tile(frequency, (200, 1))) - log_loss(target, p)) / math.log(2)
    assert bits_gained(np.log(p[np.arange(200), target]), target).mean() == pytest.approx(expected)
    assert bits_gained(np.log(frequency[target]), target) == pytest.approx(np.zeros(200))


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = [low <= 0 <= high for low, high in (bootstrap_interval(generator.normal(size=80)) for _ in range(200))]
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("text", [True, False])
def test_evaluators_see_neither_padding_nor_what_the_mask_hides(text: bool) -> None:
    torch.manual_seed(0)
    batch = toy_batch((6, 3), pad_to=9)
    schema = DataSchema(num_classes=2, vocabulary_size=30)
    if not text:
        schema = DataSchema(num_classes=2, feature_shape=(2, 2))
        batch = batch.replace(inputs=torch.randn(2, 9, 2, 2) * batch.valid[..., None, None])
    evaluator, mask = Evaluator(schema), torch.zeros(2, 9)
    mask[:, 1] = mask[:, 2] = 0.5
    logits = evaluator(batch, mask)
    for row in range(2):
        single = alone(batch, row)
        torch.testing.assert_close(evaluator(single, mask[row : row + 1, : single.valid.shape[1]])[0], logits[row])
    hidden = batch.inputs.clone()
    hidden[:, 0] = 7
    assert torch.equal(evaluator(batch.replace(inputs=hidden), mask), logits)
    hidden[:, 1] = 7
    assert not torch.equal(evaluator(batch.replace(inputs=hidden), mask), logits)


def test_evaluators_know_the_places_of_patches() -> None:
    torch.manual_seed(0)
    evaluator = Evaluator(DataSchema(num_classes=2, feature_shape=(6,), grid=(3, 4)))
    row, column = torch.arange(12) // 4, torch.arange(12) % 4
    place = torch.stack([(row + 1) / 3, (column + 1) / 4], dim=-1)[None]
    batch = toy_batch((12,))
    batch = batch.replace(inputs=torch.cat([torch.rand(1, 12, 4), place], dim=-1))
    mask = torch.rand(1, 12).softmax(dim=-1)
    logits = evaluator(batch, mask)
    with torch.no_grad():
        evaluator.place.weight[7] += 1.0  # the patch in the second row, third column
    alone = torch.zeros(1, 12)
    alone[0, 6] = 1.0
    assert not torch.equal(evaluator(batch, mask), logits)
    hidden = mask.masked_fill(alone > 0, 0.0)
    changed = evaluator(batch, hidden)
    with torch.no_grad():
        evaluator.place.weight[7] -= 1.0
    torch.testing.assert_close(evaluator(batch, hidden), changed)


def test_evaluators_read_the_query() -> None:
    torch.manual_seed(0)
    schema = DataSchema(num_classes=2, vocabulary_size=30, query_vocabulary_size=30)
    batch = toy_batch((6, 3))
    asked = batch.replace(query=batch.inputs[:, :4], query_valid=batch.valid[:, :4])
    evaluator, mask = Evaluator(schema), batch.inner / batch.inner.sum(dim=1, keepdim=True)
    logits = evaluator(asked, mask)
    padded = asked.replace(query=torch.tensor([[*asked.query[1].tolist(), 9]] * 2), query_valid=torch.ones(2, 5) < 0)
    padded.query_valid[:, :3] = True
    torch.testing.assert_close(evaluator(padded, mask)[1], logits[1])
    assert not torch.equal(evaluator(padded, mask)[0], logits[0])


def test_judging_leaves_the_random_state_and_repeats() -> None:
    batches, masks = split(WORLDS["honest"](128, torch.Generator().manual_seed(0)))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    said = []
    for _ in range(2):
        judge = MaskJudge(SCHEMA, batches, UniformSubset(1), Training(epochs=1, more_epochs=1))
        said.append(judge.judge(judge.learn(masks), batches[0], masks[0]))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(said[0][name], said[1][name]) for name in said[0])


def test_what_cannot_be_judged_is_said() -> None:
    batches, masks = split(WORLDS["honest"](64, torch.Generator().manual_seed(0)))
    quick = Training(epochs=1, more_epochs=1)
    one_class = [batch.replace(target=torch.zeros_like(batch.target)) for batch in batches]
    with pytest.raises(InputError, match="of one class"):
        MaskJudge(SCHEMA, one_class, Uniform(), quick)
    with pytest.raises(InputError, match="there are none"):
        MaskJudge(SCHEMA, [], Uniform(), quick)
    with pytest.raises(InputError, match="several"):
        Evaluator(DataSchema(num_classes=2, vocabulary_size=9, multi_label=True))
    with pytest.raises(InputError, match="NaN"):
        MaskJudge(SCHEMA, batches, Uniform(), quick).learn([mask * math.nan for mask in masks])


def test_rows_do_not_depend_on_the_batch() -> None:
    network, batch = toy_network(), toy_batch((7, 1, 12, 4), special=True, seed=2)
    together = probe_rows(network, batch, Probes())
    assert set(together) == {"index", "target", "features", "post_hoc", "post_hoc_unselected"}
    for row in range(len(batch)):
        single = probe_rows(network, alone(batch, row), Probes())
        for name, values in together.items():
            torch.testing.assert_close(single[name][0], values[row], equal_nan=True, atol=1e-5, rtol=1e-5)


def test_head_bits_are_of_the_networks_own_head() -> None:
    network, batch = built(), with_defaults((5, 6, 7, 8, 9, 3))
    rows = probe_rows(network, batch, Probes(["head_bits"]))
    assert set(rows) == {"index", "target", "head"}
    numbers = {name: value.double().numpy() for name, value in rows.items()}
    nll = torch.nn.functional.cross_entropy(network(batch).logits.double(), batch.target).item()
    share = np.bincount(batch.target.numpy()) / 6
    expected = (-(share * np.log(share)).sum() - nll) / math.log(2)
    assert figures(numbers, ())[0]["head_bits"] == pytest.approx(expected, abs=1e-6)
    one = {name: value[:1] for name, value in numbers.items()}
    assert "one class" in figures(one, ())[1]["head_bits"]


def test_the_head_of_a_network_that_sees_words_is_not_asked() -> None:
    assert "head" not in probe_rows(toy_network(), toy_batch(), Probes(["head_bits"]))


def test_selection_takes_the_top_share_and_only_what_is_attended() -> None:
    network, batch = toy_network(), toy_batch((5, 10))
    attention = torch.zeros(2, 10)
    attention[0, :5] = torch.tensor([0.1, 0.4, 0.0, 0.2, 0.3])
    attention[1, 3] = 1.0
    assert selected(network, batch, attention, 0.3)[0].nonzero().flatten().tolist() == [1, 4]  # ceil(1.5)
    assert selected(network, batch, attention, 0.3)[1].nonzero().flatten().tolist() == [3]
    assert selected(network, batch, attention, 1.0)[0].nonzero().flatten().tolist() == [0, 1, 3, 4]


def test_post_hoc_asks_the_black_box_about_parts_of_the_text() -> None:
    network, black_box, batch = toy_network(), toy_network(seed=3), toy_batch((7, 1, 12, 4), seed=4)
    rows = probe_rows(network, batch, Probes(["post_hoc_accuracy"], share=0.4, black_box=black_box))
    chosen = selected(network, batch, network(batch).attention, 0.4)
    for row in range(len(batch)):
        whole = black_box(alone(batch, row)).logits.argmax()
        for name, part in (("post_hoc", chosen[row]), ("post_hoc_unselected", ~chosen[row] & batch.valid[row])):
            if not part.any():
                assert rows[name][row].isnan()
                continue
            ids = batch.inputs[row][part][None]
            text = copy.copy(batch).select(torch.tensor([row]))
            text = text.replace(inputs=ids, valid=torch.ones_like(ids).bool(), special=torch.zeros_like(ids).bool())
            assert rows[name][row] == (black_box(text).logits.argmax() == whole)


def test_attention_on_default_tokens_is_reported_by_class() -> None:
    rows = {
        "index": np.array([0.0, 1.0, 2.0, 1.0]),
        "target": np.array([0.0, 1.0, 1.0, 1.0]),
        "default_mass": np.array([0.2, 0.4, 0.8, 0.4]),
    }
    given, _ = figures(distinct_rows([rows]), ("no", "yes"))
    assert given == pytest.approx({"default_mass": 1.4 / 3, "default_mass/no": 0.2, "default_mass/yes": 0.6})


def test_attention_with_nan_is_refused() -> None:
    network = toy_network()
    with torch.no_grad():
        network.attention.direction.weight.fill_(math.nan)
    with pytest.raises(InputError, match="training diverged"):
        probe_rows(network, toy_batch(), Probes(["leaked_bits"]))
    with pytest.raises(InputError, match="training diverged"):
        leaked_bits(np.full((40, 3), math.nan), np.arange(40) % 2)
    nan = torch.full((1, 3), math.nan)
    with pytest.raises(InputError, match="training diverged"):
        PooledAUROC().update(nan, toy_batch((3,), evidence=True))
