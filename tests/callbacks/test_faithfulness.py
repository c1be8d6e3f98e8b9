from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import LightningModule

from lightning_attn.callbacks import FaithfulnessCallback
from lightning_attn.callbacks.faithfulness import DEFAULT, KNOWN
from lightning_attn.errors import InputError
from lightning_attn.metrics import ERASURE, MEASURES, PRESETS, ChunkMean, LeakedBits, Settings, measure
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.commands import run, write_config
from tests.helpers.runs import RecordingLogger, loader, tiny_data, tiny_module, trainer
from tests.helpers.toys import toy_batch, toy_network

CHEAP = ["faithfulness/kendall_gradient", "faithfulness/comprehensiveness", "attention/entropy"]


def ours(values: dict[str, torch.Tensor]) -> dict[str, float]:
    """What the callback logged, less the split."""
    found = {name.split("/", 1)[1]: float(value) for name, value in values.items() if name.count("/") == 2}
    assert found
    return found


def test_the_default_figures_have_the_names_that_dashboards_are_built_on(tmp_path: Path) -> None:
    data = tiny_data(val=40)
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
    run.validate(tiny_module(data), data, verbose=False)
    logged = ours(run.callback_metrics)
    assert set(logged) == {*DEFAULT, "faithfulness/examples", "faithfulness/skipped"}
    assert logged["faithfulness/examples"] == 40
    assert all(value == value for value in logged.values())


def test_figures_are_those_of_a_direct_call(tmp_path: Path) -> None:
    data = tiny_data(val=40)
    module = tiny_module(data, sharpness=3.0)
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback(max_examples=None)])
    run.validate(module, data, verbose=False)
    batch = data.dataset("val")[range(40)]
    names = [name for name in DEFAULT if name in MEASURES]
    values, output = measure(module.network, batch, names)
    logged = ours(run.callback_metrics)
    for name in names:
        assert logged[name] == pytest.approx(float(values[name].nanmean()), abs=1e-5), name
    probe = LeakedBits()
    probe.update(output.attention, batch)
    for name, value in probe.compute().items():
        assert logged[f"shortcut/{name}"] == pytest.approx(float(value), abs=1e-3), name


def test_a_sample_is_the_same_in_every_epoch(tmp_path: Path) -> None:
    class Spy(FaithfulnessCallback):
        def _update(self, batch, pl_module):
            seen[-1] += batch.index.tolist()
            return super()._update(batch, pl_module)

        def on_validation_epoch_start(self, trainer, pl_module):
            seen.append([])
            super().on_validation_epoch_start(trainer, pl_module)

    seen: list[list[int]] = []
    data = tiny_data()
    trainer(tmp_path, max_epochs=3, callbacks=[Spy(max_examples=6, metrics=CHEAP)]).fit(tiny_module(data), data)
    assert len(seen) == 3
    assert len(set(seen[0])) == 6
    assert set(seen[0]) == set(seen[1]) == set(seen[2]) != set(range(6))


def test_epochs_that_are_not_measured_log_nothing(tmp_path: Path) -> None:
    data, logger = tiny_data(), RecordingLogger()
    callback = FaithfulnessCallback(every_n_epochs=2, metrics=CHEAP)
    trainer(tmp_path, max_epochs=5, logger=logger, callbacks=[callback]).fit(tiny_module(data), data)
    rows = [row for row in logger.rows if "val/attention/entropy" in row]
    assert [row["epoch"] for row in rows] == [1, 3]
    assert len(logger.values("val/loss")) == 5


def test_only_the_chosen_splits_are_measured(tmp_path: Path) -> None:
    data, callback = tiny_data(), FaithfulnessCallback(metrics=CHEAP, splits=["test"])
    run, module = trainer(tmp_path, callbacks=[callback]), tiny_module(data)
    run.validate(module, data, verbose=False)
    assert "val/attention/entropy" not in run.callback_metrics
    run.test(module, data, verbose=False)
    assert "test/attention/entropy" in run.callback_metrics


def test_training_is_the_same_to_the_last_bit_with_and_without(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [FaithfulnessCallback()]):
        data = tiny_data()
        module = tiny_module(data, RandomPretraining(epochs=1), dropout=0.3)
        torch.manual_seed(1)
        trainer(tmp_path, max_epochs=3, callbacks=callbacks).fit(module, data)
        weights.append(module.state_dict())
    # State dicts hold the mitigation's plain values, too; exact comparison of both kinds.
    assert weights[0].keys() == weights[1].keys()
    torch.testing.assert_close(dict(weights[0]), dict(weights[1]), rtol=0, atol=0)


def test_frozen_modules_keep_their_mode(tmp_path: Path) -> None:
    modes = []

    class Spy(AttentionClassifier):
        def on_validation_epoch_end(self) -> None:
            modes.append(self.network.encoder.training)
            super().on_validation_epoch_end()

        def on_train_batch_start(self, *arguments) -> None:
            modes.append(self.network.encoder.training)

    data = tiny_data(train=4)
    module = Spy(tiny_module(data).network)
    callback = FaithfulnessCallback(metrics=CHEAP)
    trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(module, data)
    assert modes == [True, False, True, False]
    assert all(parameter.grad is None or parameter.requires_grad for parameter in module.parameters())


def test_undefined_examples_are_counted_and_never_logged_as_nan(tmp_path: Path) -> None:
    network = toy_network()
    mixed, single = toy_batch([6, 1, 1, 9], seed=1), toy_batch([1, 1], seed=2)
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
    run.validate(AttentionClassifier(network), loader(mixed, single), verbose=False)
    logged = ours(run.callback_metrics)
    assert logged["faithfulness/examples"] == 6
    assert logged["faithfulness/skipped"] == 4
    assert all(value == value for value in logged.values())

    run = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
    run.validate(AttentionClassifier(network), loader(single), verbose=False)
    logged = ours(run.callback_metrics)
    assert "faithfulness/kendall_loo" not in logged
    assert logged["faithfulness/skipped"] == 2
    assert all(value == value for value in logged.values())


def test_plausibility_is_logged_only_where_there_is_evidence(tmp_path: Path) -> None:
    for evidence in (True, False):
        run = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
        batch = toy_batch([6, 8, 9], evidence=evidence)
        run.validate(AttentionClassifier(toy_network()), loader(batch), verbose=False)
        assert any("plausibility" in name for name in run.callback_metrics) == evidence


def test_several_labels_an_example_are_measured_but_for_the_probe(tmp_path: Path) -> None:
    batch = toy_batch([6, 8, 9], classes=3, multi_label=True)
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
    run.validate(AttentionClassifier(toy_network(classes=3, multi_label=True)), loader(batch), verbose=False)
    logged = ours(run.callback_metrics)
    assert "faithfulness/aopc" in logged
    assert not any(name.startswith("shortcut") for name in logged)


def test_a_module_that_logged_before_can_be_measured_later(tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data)
    trainer(tmp_path).validate(module, data, verbose=False)
    for callback in (FaithfulnessCallback(metrics=CHEAP), FaithfulnessCallback(metrics=["faithfulness/aopc"])):
        run = trainer(tmp_path, callbacks=[callback])
        run.validate(module, data, verbose=False)
        assert f"val/{callback.names[0]}" in run.callback_metrics


def test_the_checkpoint_does_not_know_the_callback(tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data)
    before = set(module.state_dict())
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback(metrics=CHEAP)])
    run.fit(module, data)
    assert set(module.state_dict()) == before


def test_the_costly_adversaries_are_there_on_demand(tmp_path: Path) -> None:
    assert "faithfulness/adversarial_jsd" in KNOWN
    assert "faithfulness/adversarial_jsd" not in DEFAULT
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback(metrics=["faithfulness/adversarial_jsd"])])
    run.validate(AttentionClassifier(toy_network()), loader(toy_batch([4, 3])), verbose=False)
    assert 0 <= run.callback_metrics["val/faithfulness/adversarial_jsd"] <= 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["faithfulness/aop"]}, r"no metric 'faithfulness/aop'; the metrics are .*faithfulness/aopc"),
        ({"splits": ["train"]}, "no split 'train'; the splits are val, test"),
        ({"max_examples": 0}, "max_examples of at least 1, not 0"),
        ({"every_n_epochs": 0}, "every_n_epochs of at least 1, not 0"),
    ],
)
def test_a_wrong_argument_says_what_would_be_right(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FaithfulnessCallback(**arguments)


def test_two_of_them_would_log_under_the_same_names(tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback(), FaithfulnessCallback()])
    with pytest.raises(InputError, match="same names"):
        run.validate(tiny_module(data), data, verbose=False)


def test_a_module_without_network_is_refused(tmp_path: Path) -> None:
    class Bare(LightningModule):
        def validation_step(self, batch, batch_idx):
            pass

    run = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
    with pytest.raises(InputError, match="no attribute `network`"):
        run.validate(Bare(), loader(toy_batch()), verbose=False)


@pytest.mark.parametrize("name", ["mask_lrp", "ferret"])
def test_a_preset_decides_what_is_measured(name: str, tmp_path: Path) -> None:
    data = tiny_data(val=40)
    module = tiny_module(data, sharpness=3.0)
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback(max_examples=None, preset=name)])
    run.validate(module, data, verbose=False)
    batch = data.dataset("val")[range(40)]
    names = [f"faithfulness/{measured}" for measured in ERASURE]
    values, _ = measure(module.network, batch, names, Settings(preset=PRESETS[name]))
    logged = ours(run.callback_metrics)
    for measured in names:
        expected = float(values[measured].nanmean())
        if name == "mask_lrp":
            chunks = ChunkMean(10)
            chunks.update(values[measured], batch.index)
            expected = float(chunks.compute())
        assert logged[measured] == pytest.approx(expected, abs=1e-5, nan_ok=True), measured
    with pytest.raises(InputError, match="no preset 'lime'"):
        FaithfulnessCallback(preset="lime")


@pytest.mark.parametrize(
    "written",
    [
        "{ranking: positive_only, least_tokens: 3, count_special: true, chunks: 3}",
        "{ranking: PositiveOnly, texts: {class_path: WholeLength, init_args: {least: 3}}, chunks: 3}",  # of 0.1.0
    ],
)
def test_a_preset_of_ones_own_goes_into_the_configuration_and_back(written: str, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        f"""
trainer:
  callbacks+:
    - class_path: FaithfulnessCallback
      init_args:
        metrics: [faithfulness/comprehensiveness]
        preset: {written}
"""
    )
    first = run("fit", write_config(tmp_path), tmp_path / "first", f"--config={overlay}", "--trainer.max_epochs=1")
    again = run("fit", first / "config.yaml", tmp_path / "second")
    for folder in (first, again):
        preset = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["callbacks"][-1]["init_args"]["preset"]
        assert preset["ranking"] == "positive_only"
        assert (preset["least_tokens"], preset["count_special"]) == (3, True)
        assert preset["budget"]["init_args"] == {"fractions": [0.01, 0.05, 0.1, 0.2, 0.5]}
        assert preset["chunks"] == 3
    figures = [(folder / "metrics.csv").read_text().splitlines()[-1] for folder in (first, again)]
    assert "val/faithfulness/comprehensiveness" in (first / "metrics.csv").read_text()
    assert figures[0] == figures[1]
