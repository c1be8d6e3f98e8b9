from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_attn.experiments import (
    AdversarialRecord,
    AgreementRecord,
    CounterfactualRecord,
    ExperimentRecord,
    PermutationRecord,
)
from lightning_attn.experiments.record import joined
from tests.helpers.experiments import KINDS, made


def with_nothing(record: ExperimentRecord, rows: int, *names: str) -> ExperimentRecord:
    """The record with undefined values in the first rows."""
    values = {name: column.copy() for name, column in record.values.items()}
    for name in names:
        values[name][:rows] = np.nan
    return dataclasses.replace(record, values=values)


def test_the_summary_of_agreement() -> None:
    record = with_nothing(made(AgreementRecord), 5, "gradient_tau", "gradient_p")
    found = record.summary()
    tau, p = record.values["gradient_tau"], record.values["gradient_p"]
    assert found["gradient_tau"] == pytest.approx(stats.tmean(tau[5:]))
    assert found["gradient_tau_sd"] == pytest.approx(stats.tstd(tau[5:]) * math.sqrt(54 / 55))
    assert found["gradient_significant"] == pytest.approx(sum(value <= 0.05 for value in p[5:]) / 55)
    assert found["gradient_undefined"] == 5
    assert found["loo_undefined"] == 0
    assert found["gradient_top"] == pytest.approx(record.values["gradient_top"].mean())
    assert {"gradient_without_attention_tau", "gradient_loo_significant", "loo_top"} <= found.keys()


def test_the_summary_of_permutation() -> None:
    record = with_nothing(made(PermutationRecord), 3, "tvd")
    change = record.values["tvd"][3:]
    assert record.summary() == {
        "median_tvd": pytest.approx(np.median(change)),
        "mean_tvd": pytest.approx(change.mean()),
        "undefined": 3,
    }


def test_the_summary_of_adversaries() -> None:
    record = with_nothing(made(AdversarialRecord), 2, "jsd")
    jsd = record.values["jsd"][2:]
    found = record.summary()
    assert found["mean_max_jsd"] == pytest.approx(jsd.mean())
    for name, mark in (("quarter", 0.25), ("half", 0.5), ("three_quarters", 0.75)):
        assert found[f"above_{name}"] == pytest.approx((jsd / math.log(2) > mark).mean())
    assert found["undefined"] == 2


def test_the_summary_of_counterfactuals() -> None:
    record = with_nothing(made(CounterfactualRecord), 4, *(f"{name}/tvd" for name in ("uniform", "random", "other")))
    found = record.summary()
    for source in ("uniform", "random", "other"):
        accuracy = record.values[f"{source}/correct"].mean()
        assert found[f"{source}/accuracy"] == pytest.approx(accuracy)
        assert found[f"{source}/accuracy_change"] == pytest.approx(accuracy - record.values["correct"].mean())
        assert found[f"{source}/output_change"] == pytest.approx(record.values[f"{source}/tvd"][4:].mean())
    assert found["undefined"] == 4


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_undefined_everywhere_is_none_and_never_nan(kind: type[ExperimentRecord]) -> None:
    record = made(kind)
    names = [name for name in record.values if name not in ("tokens", "largest_weight")]
    found = with_nothing(record, 60, *names)
    assert all(value is None or value in (0, 60) for value in found.summary().values())
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.figures()


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_those_that_were_predicted(kind: type[ExperimentRecord]) -> None:
    record = made(kind, classes=5)
    record.prediction[record.prediction == 3] = 4
    parts = record.by_class()
    assert list(parts) == ["class 0", "class 1", "class 2", "class 4"]
    assert sum(len(part) for part in parts.values()) == len(record)
    for name, part in parts.items():
        rows = record.prediction == int(name[-1])
        np.testing.assert_array_equal(part.index, record.index[rows])
        np.testing.assert_array_equal(part.values["largest_weight"], record.values["largest_weight"][rows])
        assert part.summary() == record.select(rows).summary()


@pytest.mark.parametrize("kind", KINDS)
def test_the_document_is_strict_json(kind: type[ExperimentRecord]) -> None:
    record = with_nothing(made(kind), 1, "largest_weight")
    found = json.loads(json.dumps(record.as_dict(), allow_nan=False))
    assert found["experiment"] == kind.name
    assert found["examples"] == len(found["rows"]) == 60
    assert found["rows"][0]["largest_weight"] is None
    assert found["rows"][7]["largest_weight"] == pytest.approx(record.values["largest_weight"][7], rel=1e-5)
    assert found["rows"][7]["prediction"] == f"class {record.prediction[7]}"
    assert found["rows"][7]["label"] == f"class {record.target[7]}"
    assert sum(part["examples"] for part in found["by_predicted_class"].values()) == 60
    assert found["summary"].keys() | {"examples"} == found["by_predicted_class"]["class 0"].keys()


def test_labels_of_multi_label_examples_are_lists() -> None:
    record = made(PermutationRecord, count=3, classes=3)
    record.target = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert [row["label"] for row in record.rows()] == [["class 0", "class 2"], [], ["class 1"]]


def test_headlines_are_in_the_summary() -> None:
    for kind in KINDS:
        assert set(kind.headlines) <= made(kind).summary().keys()
        assert kind.words.keys() - {"gradient_without_attention_significant", "gradient_without_attention_top"} <= set(
            made(kind).summary()
        )


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60),
    parts=st.integers(1, 4),
)
def test_what_processes_found_does_not_depend_on_how_examples_were_dealt(
    rows: list[tuple[int, int]], parts: int
) -> None:
    """Rows that a sampler repeated are there more than once; each process has some, or none."""
    dealt = []
    for number in range(parts):
        index = np.array([index for index, process in rows if process % parts == number], dtype=np.int64)
        dealt.append({"index": index, "value": index * 0.5})
    found = joined(dealt)
    assert found["index"].tolist() == sorted({index for index, _ in rows})
    np.testing.assert_array_equal(found["value"], found["index"] * 0.5)


def test_joined_parts_hold_every_example_once_in_order() -> None:
    parts = [
        {"index": np.array([7, 3]), "x": np.array([0.7, 0.3])},
        {"index": np.array([5, 3, 1]), "x": np.array([0.5, -1.0, 0.1])},
    ]
    found = joined(parts)
    assert found["index"].tolist() == [1, 3, 5, 7]
    assert found["x"].tolist() == [0.1, 0.3, 0.5, 0.7]
    assert joined([]) == {}
