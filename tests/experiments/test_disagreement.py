"""The callback: its figures, files and drawings, with evidence and without."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.errors import InputError
from lightning_attn.experiments import DisagreementCallback
from lightning_attn.metrics import disagreement
from lightning_attn.networks import AttentionEnsemble
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.runs import loader, tiny_data, tiny_module, trainer
from tests.helpers.toy_bags import toy_bag_network, toy_bags
from tests.helpers.toys import toy_batch, toy_network


def module_of(data: SyntheticReviewsDataModule) -> AttentionClassifier:
    torch.manual_seed(0)
    networks = [tiny_module(data, sharpness=3.0 + number).network for number in range(3)]
    return AttentionClassifier(AttentionEnsemble(networks))


def test_what_is_logged_is_what_the_functions_say(tmp_path: Path) -> None:
    data = tiny_data(test=19)
    module = module_of(data)
    run = trainer(tmp_path, callbacks=[DisagreementCallback()])
    run.test(module, data, verbose=False)
    prefix = "test/explanation/disagreement/"
    logged = {key.removeprefix(prefix): float(value) for key, value in run.callback_metrics.items() if prefix in key}
    batch = data.dataset("test")[range(19)]
    expected = disagreement(module.network, batch)
    assert logged["jsd"] == pytest.approx(float(expected.jsd.mean()), abs=1e-6)
    assert logged["rank_correlation"] == pytest.approx(float(expected.rank_correlation.nanmean()), abs=1e-6)
    assert logged["examples"] == 19
    error = 1 - expected.attention_auroc.numpy()
    known = ~np.isnan(error)
    order = np.argsort(expected.jsd.numpy()[known])
    risks = [error[known][order][:kept].mean() for kept in range(1, known.sum() + 1)]
    assert logged["risk_coverage/area"] == pytest.approx(np.mean(risks), abs=1e-6)
    assert logged["risk_coverage/random"] == pytest.approx(error[known].mean(), abs=1e-6)
    assert logged["attention_auroc/undefined"] == (~known).sum()
    folder = tmp_path / "explanation" / "test"
    document = json.loads((folder / "disagreement.json").read_text())
    assert [row["jsd"] for row in document["rows"]] == pytest.approx(expected.jsd.tolist(), abs=1e-5)
    assert document["settings"]["top_n"] == 3
    for ending in ("png", "svg"):
        assert (folder / f"disagreement.{ending}").stat().st_size > 5_000


def test_disagreement_that_foretells_errors_has_a_gain() -> None:
    record = DisagreementCallback().measure(
        AttentionEnsemble([toy_network(seed=0), toy_network(seed=1)]),
        loader(toy_batch((7, 5, 12, 9, 6, 8), evidence=True)),
    )
    error = 1 - record.values["attention_auroc"]
    for order, sign in ((error, 1), (-error, -1)):
        ordered = dataclasses.replace(record, values={**record.values, "jsd": order})
        assert np.sign(ordered.summary()["risk_coverage/gain"]) == sign
    axes = record.figures()["disagreement"].axes
    assert [axis.get_xlabel() for axis in axes][1] == "mean divergence of two members (nats)"
    assert len(axes[0].lines) == 3


def test_without_evidence_only_disagreement_is_shown() -> None:
    network = AttentionEnsemble([toy_bag_network("gated"), toy_bag_network("additive")])
    record = DisagreementCallback(top_n=1).measure(network, loader(toy_bags().replace(evidence=None).pack()))
    assert set(record.summary()) == {
        "jsd",
        "rank_correlation",
        "top_overlap",
        "largest_deviation",
        "rank_correlation/undefined",
    }
    titles = [axis.get_title() for axis in record.figures()["disagreement"].axes]
    assert titles[0].startswith("Divergence")


def test_a_single_network_has_nobody_to_disagree(tmp_path: Path) -> None:
    data = tiny_data()
    with pytest.raises(InputError, match="measures an AttentionEnsemble, not a PooledNetwork"):
        trainer(tmp_path, callbacks=[DisagreementCallback()]).test(tiny_module(data), data, verbose=False)
    with pytest.raises(InputError, match="top_n of at least 1, not 0"):
        DisagreementCallback(top_n=0)
