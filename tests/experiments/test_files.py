"""What the callbacks leave in the run's folder and in the loggers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_attn.experiments import PermutationCallback, agreement
from lightning_attn.runs.loggers import start_wandb, use_epoch_axis
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.experiments import NAMES, document, four, ours
from tests.helpers.runs import loader, tiny_data, tiny_module, trainer
from tests.helpers.toys import toy_batch, toy_network
from tests.helpers.wandb_files import finished_run, offline_records


def test_the_run_folder_has_every_example_with_its_values(tmp_path: Path) -> None:
    data = tiny_data(test=9)
    module = tiny_module(data, sharpness=3.0)
    run = trainer(tmp_path, callbacks=four())
    run.test(module, data, verbose=False)
    batch = data.dataset("test")[range(9)]
    expected = agreement(module.network, batch)
    found = document(tmp_path, "agreement", "test")
    assert [row["index"] for row in found["rows"]] == list(range(9))
    assert [row["gradient_tau"] for row in found["rows"]] == pytest.approx(expected.gradient.tolist(), abs=1e-5)
    names = data.schema.class_names
    predicted = module.network(batch).logits.argmax(dim=-1)
    assert [row["prediction"] for row in found["rows"]] == [names[int(label)] for label in predicted]
    assert [row["label"] for row in found["rows"]] == [names[int(label)] for label in batch.target]
    assert [row["tokens"] for row in found["rows"]] == batch.inner.sum(dim=-1).tolist()
    assert found["settings"]["top_k"] == 5
    assert found["moment"] == "test"
    logged = ours(run)
    for name in NAMES:
        summary = document(tmp_path, name, "test")["summary"]
        for key, value in summary.items():
            assert logged[f"{name}/{key}"] == pytest.approx(value, rel=1e-4, abs=1e-6)
        for ending in ("png", "svg"):
            assert (tmp_path / "explanation" / "test" / f"{name}.{ending}").stat().st_size > 5_000
    assert sorted(path.name for path in (tmp_path / "explanation").iterdir()) == ["test"]
    assert not list(tmp_path.glob("explanation/*/*.part"))


def test_tensorboard_gets_the_figures(tmp_path: Path) -> None:
    data = tiny_data()
    logger = TensorBoardLogger(tmp_path, name="tb", version="0")
    run = trainer(tmp_path, max_epochs=2, logger=logger, callbacks=four(splits=["val"]))
    run.fit(tiny_module(data), data)
    logger.experiment.close()
    events = EventAccumulator(str(tmp_path / "tb" / "0"))
    events.Reload()
    for name in NAMES:
        assert len(events.Images(f"val/explanation/{name}_figure")) == 2
    assert (tmp_path / "tb" / "0" / "explanation" / "val" / "agreement.json").is_file()


def test_a_full_disk_does_not_end_the_training(tmp_path: Path) -> None:
    (tmp_path / "explanation").write_text("a file where the folder would be")
    data = tiny_data()
    run = trainer(tmp_path, callbacks=[PermutationCallback(splits=["val"])])
    with pytest.warns(UserWarning, match="run folder could not take the result val/explanation/permutation"):
        run.fit(tiny_module(data), data)
    assert run.state.finished
    assert "permutation/mean_tvd" in ours(run)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished Weights & Biases run of two epochs, after a sanity check."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        logger = start_wandb(place, "offline")
        assert logger is not None
        use_epoch_axis(logger)
        data = tiny_data(val=9)
        run = trainer(place, max_epochs=2, logger=logger, callbacks=four(max_examples=7), num_sanity_val_steps=2)
        run.fit(tiny_module(data), data)
        yield finished_run(place)


def test_wandb_gets_curves_figures_and_a_table_of_all_examples(offline: Path) -> None:
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in offline_records(next(offline.glob("*.wandb")))
        if record.WhichOneof("record_type") == "history"
    ]
    for name in ("agreement/loo_tau", "permutation/mean_tvd", "adversarial/mean_max_jsd", "counterfactual/accuracy"):
        rows = [row for row in history if f"val/explanation/{name}" in row]
        assert [row["epoch"] for row in rows] == [0, 1], name
    for name in NAMES:
        for key, kind in ((f"{name}_figure", "image-file"), (f"{name}_table", "table-file")):
            rows = [row for row in history if row.get(f"val/explanation/{key}/_type") == kind]
            assert [row["epoch"] for row in rows] == [0, 1], key
        assert len(list(offline.glob(f"files/media/images/val/explanation/{name}_figure_*.png"))) == 2
        for path in offline.glob(f"files/media/table/val/explanation/{name}_table_*.json"):
            table = json.loads(path.read_text())
            assert len(table["data"]) == 7
            assert {"index", "label", "prediction", "largest_weight"} <= set(table["columns"])


def test_a_table_of_many_labels_an_example_can_be_shown(tmp_path: Path) -> None:
    shown = []

    class Spy(WandbLogger):
        def __init__(self) -> None:
            super().__init__(offline=True, save_dir=tmp_path, mode="offline")  # whatever tests before this one set

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            shown.append(metrics)

        def log_hyperparams(self, *arguments: Any, **named: Any) -> None: ...

        def finalize(self, status: str) -> None: ...

    batch = toy_batch([6, 8, 9], classes=3, multi_label=True)
    run = trainer(tmp_path, logger=Spy(), callbacks=[PermutationCallback(splits=["val"])])
    run.validate(AttentionClassifier(toy_network(classes=3, multi_label=True)), loader(batch), verbose=False)
    (table,) = [value for row in shown for key, value in row.items() if key == "val/explanation/permutation_table"]
    labels = [row[table.columns.index("label")] for row in table.data]
    assert labels == [", ".join(str(n) for n in target.nonzero().flatten().tolist()) for target in batch.target]
