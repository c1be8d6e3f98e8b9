"""The four callbacks in fit, validate, test and without a Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule

from lightning_attn.errors import InputError
from lightning_attn.experiments import (
    AdversarialCallback,
    AgreementCallback,
    CounterfactualCallback,
    EdgeSolver,
    ExperimentCallback,
    PermutationCallback,
    PublishedSolver,
    Random,
    Uniform,
    adversarial,
    agreement,
    counterfactual,
    permutation,
)
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import PairedNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.experiments import CALLBACKS, NAMES, document, four, ours
from tests.helpers.runs import RecordingLogger, loader, tiny_data, tiny_module, trainer
from tests.helpers.toy_pairs import paired, pairs
from tests.helpers.toys import toy_batch, toy_network


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not turned into files, which takes most of the time; see ``test_files``."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


def test_figures_are_those_of_direct_calls(tmp_path: Path) -> None:
    data = tiny_data(val=21)
    module = tiny_module(data, sharpness=3.0)
    run = trainer(tmp_path, callbacks=four(max_examples=None))
    run.validate(module, data, verbose=False)
    logged, batch = ours(run), data.dataset("val")[range(21)]
    by_agreement = agreement(module.network, batch)
    assert logged["agreement/gradient_tau"] == pytest.approx(float(by_agreement.gradient.mean()), abs=1e-5)
    assert logged["agreement/loo_tau_sd"] == pytest.approx(float(by_agreement.loo.std(correction=0)), abs=1e-5)
    assert logged["agreement/gradient_loo_top"] == pytest.approx(float(by_agreement.gradient_loo_top.mean()), abs=1e-5)
    share = float((by_agreement.loo_p <= 0.05).double().mean())
    assert logged["agreement/loo_significant"] == pytest.approx(share, abs=1e-5)
    change = permutation(module.network, batch).change
    assert logged["permutation/mean_tvd"] == pytest.approx(float(change.mean()), abs=1e-5)
    jsd = adversarial(module.network, batch).jsd
    assert logged["adversarial/mean_max_jsd"] == pytest.approx(float(jsd.mean()), abs=1e-4)
    for name, source in (("uniform", Uniform()), ("random", Random())):
        found = counterfactual(module.network, batch, source)
        assert logged[f"counterfactual/{name}/accuracy"] == pytest.approx(float(found.correct.mean()), abs=1e-6)
        assert logged[f"counterfactual/{name}/output_change"] == pytest.approx(float(found.change.mean()), abs=1e-5)
    assert all(logged[f"{name}/examples"] == 21 for name in NAMES)


def test_classes_are_logged_apart(tmp_path: Path) -> None:
    network = toy_network(classes=3, sharpness=4.0)
    run = trainer(tmp_path, callbacks=[AgreementCallback(splits=["val"])])
    run.validate(AttentionClassifier(network), loader(toy_batch(range(5, 17), classes=3)), verbose=False)
    logged, rows = ours(run), document(tmp_path, "agreement")["rows"]
    predicted = {row["prediction"] for row in rows}
    assert len(predicted) > 1
    for name in predicted:
        mean = np.mean([row["loo_tau"] for row in rows if row["prediction"] == name])
        assert logged[f"agreement/loo_tau/{name}"] == pytest.approx(mean, abs=1e-5)


def test_a_sample_is_the_same_in_every_epoch_and_without_a_trainer(tmp_path: Path) -> None:
    data, logger = tiny_data(), RecordingLogger()
    module = tiny_module(data)
    callback = PermutationCallback(max_examples=6, splits=["val"], every_n_epochs=2, seed=3)
    run = trainer(tmp_path, max_epochs=5, logger=logger, callbacks=[callback])
    run.fit(module, data)
    rows = [row for row in logger.rows if "val/explanation/permutation/mean_tvd" in row]
    assert [row["epoch"] for row in rows] == [1, 3]
    (folder,) = tmp_path.rglob("explanation")
    found = document(folder.parent, "permutation")
    assert found["moment"] == "epoch 3"
    indices = [row["index"] for row in found["rows"]]
    assert len(indices) == 6
    record = PermutationCallback(max_examples=6, seed=3).measure(module.network, data.val_dataloader())
    assert record.index.tolist() == indices
    assert (
        PermutationCallback(max_examples=6, seed=4).measure(module.network, data.val_dataloader()).index.tolist()
        != indices
    )


@pytest.mark.parametrize("kind", CALLBACKS)
def test_without_a_trainer_the_figures_are_the_same(kind: type[ExperimentCallback[Any]], tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data, sharpness=3.0)
    run = trainer(tmp_path, callbacks=[kind()])
    run.test(module, data, verbose=False)
    data.setup("test")
    record = kind().measure(module.network, data.test_dataloader())
    assert {key: value for key, value in record.summary().items() if value is not None} == {
        key.split("/", 1)[1]: pytest.approx(value, rel=1e-6)
        for key, value in ours(run).items()
        if key.split("/", 1)[1] in record.summary()
    }
    assert set(record.figures()) == {record.name}


def test_nothing_to_measure_without_a_trainer() -> None:
    with pytest.raises(InputError, match="PermutationCallback was given no example"):
        PermutationCallback().measure(toy_network(), [])


def test_only_the_chosen_splits_are_measured(tmp_path: Path) -> None:
    data = tiny_data()
    run, module = trainer(tmp_path, callbacks=[PermutationCallback()]), tiny_module(data)
    run.validate(module, data, verbose=False)
    assert not ours(run)
    assert not (tmp_path / "explanation").exists()
    run.test(module, data, verbose=False)
    assert "permutation/mean_tvd" in ours(run)


def test_training_is_the_same_to_the_last_bit_with_and_without(tmp_path: Path) -> None:
    weights = []
    for number, callbacks in enumerate(([], four())):
        data = tiny_data()
        module = tiny_module(data, RandomPretraining(epochs=1), dropout=0.3)
        torch.manual_seed(1)
        trainer(tmp_path / str(number), max_epochs=3, callbacks=callbacks).fit(module, data)
        weights.append(module.state_dict())
    assert weights[0].keys() == weights[1].keys()
    torch.testing.assert_close(dict(weights[0]), dict(weights[1]), rtol=0, atol=0)


def test_undefined_examples_are_counted_and_never_logged_as_nan(tmp_path: Path) -> None:
    mixed, single = toy_batch([6, 1, 1, 9], seed=1), toy_batch([1, 1], seed=2)
    run = trainer(tmp_path, callbacks=four())
    run.validate(AttentionClassifier(toy_network()), loader(mixed, single), verbose=False)
    logged = ours(run)
    assert all(value == value for value in logged.values())
    undefined = [value for name, value in logged.items() if name.endswith("undefined")]
    assert len(undefined) == 4 + 3
    assert set(undefined) == {4.0}
    rows = document(tmp_path, "agreement")["rows"]
    assert [row["loo_tau"] is None for row in rows] == [row["tokens"] == 1 for row in rows]

    run = trainer(tmp_path / "single", callbacks=four())
    run.validate(AttentionClassifier(toy_network()), loader(single), verbose=False)
    logged = ours(run)
    assert "agreement/loo_tau" not in logged
    assert logged["agreement/loo_undefined"] == 2
    assert all(value == value for value in logged.values())


def test_constant_weights_have_no_rank(tmp_path: Path) -> None:
    network = toy_network()
    with torch.no_grad():
        network.attention.direction.weight.zero_()
    run = trainer(tmp_path, callbacks=four())
    run.validate(AttentionClassifier(network), loader(toy_batch([6, 5, 9])), verbose=False)
    logged = ours(run)
    assert logged["agreement/gradient_undefined"] == logged["agreement/loo_undefined"] == 3
    assert logged["permutation/median_tvd"] == pytest.approx(0, abs=1e-6)
    assert logged["counterfactual/uniform/output_change"] == pytest.approx(0, abs=1e-6)


def test_several_labels_an_example(tmp_path: Path) -> None:
    batch = toy_batch([6, 8, 9], classes=3, multi_label=True)
    run = trainer(tmp_path, callbacks=four())
    run.validate(AttentionClassifier(toy_network(classes=3, multi_label=True)), loader(batch), verbose=False)
    assert 0 <= ours(run)["counterfactual/accuracy"] <= 1
    rows = document(tmp_path, "permutation")["rows"]
    assert [row["label"] for row in rows] == [
        [str(n) for n in target.nonzero().flatten().tolist()] for target in batch.target
    ]


def test_more_classes_than_colours_are_not_logged_apart(tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=four())
    network = toy_network(classes=7)
    run.validate(AttentionClassifier(network), loader(toy_batch([6, 8, 9, 5], classes=7)), verbose=False)
    assert not any(name.startswith("permutation/mean_tvd/") for name in ours(run))
    assert document(tmp_path, "permutation")["by_predicted_class"]


def test_texts_under_a_query(tmp_path: Path) -> None:
    network = paired("average")
    assert isinstance(network, PairedNetwork)
    run = trainer(tmp_path, callbacks=four())
    run.validate(AttentionClassifier(network), loader(pairs()), verbose=False)
    assert {f"{name}/examples" for name in NAMES} <= ours(run).keys()
    assert all(value == value for value in ours(run).values())


def test_the_terminal_shows_a_table_and_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_data()
    module = tiny_module(data, sharpness=3.0)
    run = trainer(tmp_path, callbacks=four(splits=["val"]))
    run.fit(module, data)
    assert "explanation" not in capsys.readouterr().out, "in training there are curves"
    run.validate(module, data, verbose=False)
    output = capsys.readouterr().out
    for name in NAMES:
        assert f"explanation/val/{name}.json" in output.replace("\n", "")
    for words in (
        "attention and leave-one-out: tau",
        "mean change of the output (TVD)",
        "share above 0.5 ln2",
        "examples",
    ):
        assert words.replace("ln2", "ln 2") in output
    assert f"{ours(run)['adversarial/mean_max_jsd']:.3f}" in output


def test_no_example_is_said_and_nothing_written(tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path, callbacks=four(), limit_val_batches=0)
    run.fit(tiny_module(data), data)
    assert not ours(run)
    assert not (tmp_path / "explanation").exists()


def test_the_checkpoint_does_not_know_the_callbacks(tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data)
    before = set(module.state_dict())
    trainer(tmp_path, callbacks=four()).fit(module, data)
    assert set(module.state_dict()) == before


def test_settings_say_which_solver(tmp_path: Path) -> None:
    batch = toy_batch([4, 3])
    for solver, expected in (
        (None, {"class": "EdgeSolver", "epsilon": 0.05}),
        (
            PublishedSolver(adversaries=2, steps=3, epsilon=0.1),
            {"class": "PublishedSolver", "steps": 3, "epsilon": 0.1},
        ),
        (EdgeSolver(epsilon=0.2), {"class": "EdgeSolver", "epsilon": 0.2}),
    ):
        record = AdversarialCallback(solver).measure(toy_network(), [batch])
        assert expected.items() <= record.settings["solver"].items()
        json.dumps(record.as_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", CALLBACKS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": ["train"]}, "knows no split 'train'; the splits are val, test"),
        ({"max_examples": 0}, "max_examples of at least 1, not 0"),
        ({"every_n_epochs": 0}, "every_n_epochs of at least 1, not 0"),
        ({"max_tokens": 0}, "max_tokens of at least 1, not 0"),
    ],
)
def test_a_wrong_argument_says_what_would_be_right(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__} .*{message}"):
        kind(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PermutationCallback(permutations=0), "PermutationCallback needs permutations of at least 1, not 0"),
        (lambda: AgreementCallback(top_k=0), "AgreementCallback needs top_k of at least 1, not 0"),
        (lambda: CounterfactualCallback(sources=[]), "at least one source"),
        (lambda: AdversarialCallback(PublishedSolver(adversaries=0)), "adversaries"),
        (lambda: AdversarialCallback(EdgeSolver(epsilon=0)), "epsilon"),
    ],
)
def test_a_wrong_setting_of_an_experiment(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("kind", CALLBACKS)
def test_two_of_a_kind_would_write_the_same_files(kind: Any, tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path, callbacks=[kind(), kind()])
    with pytest.raises(InputError, match=f"Two {kind.__name__}s would log under the same names"):
        run.validate(tiny_module(data), data, verbose=False)


def test_a_module_without_network_is_refused(tmp_path: Path) -> None:
    class Bare(LightningModule):
        def validation_step(self, batch, batch_idx):
            pass

    run = trainer(tmp_path, callbacks=[PermutationCallback()])
    with pytest.raises(InputError, match="no attribute `network`"):
        run.validate(Bare(), loader(toy_batch()), verbose=False)
