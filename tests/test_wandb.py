"""An offline Weights & Biases run, read back from its files."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_attn.callbacks import AttentionTableCallback, FaithfulnessCallback
from lightning_attn.runs.loggers import start_wandb, use_epoch_axis
from tests.helpers.runs import tiny_data, tiny_module, trainer
from tests.helpers.wandb_files import finished_run, offline_records

EPOCHS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of three epochs, after a sanity check."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        logger = start_wandb(place, "offline")
        assert logger is not None
        use_epoch_axis(logger)
        data = tiny_data(val=40)
        callbacks = [FaithfulnessCallback(), AttentionTableCallback(max_examples=4)]
        run = trainer(place, max_epochs=EPOCHS, logger=logger, callbacks=callbacks, num_sanity_val_steps=2)
        run.fit(tiny_module(data), data)
        yield finished_run(place)


@pytest.fixture(scope="module")
def history(folder: Path) -> list[dict[str, object]]:
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in offline_records(next(folder.glob("*.wandb")))
        if record.WhichOneof("record_type") == "history"
    ]


def test_every_curve_has_one_point_an_epoch(history: list[dict[str, object]]) -> None:
    curves = {name for row in history for name in row if name.startswith("val/")}
    for group, least in {"faithfulness": 13, "attention": 4, "plausibility": 4, "shortcut": 3}.items():
        assert sum(name.startswith(f"val/{group}/") for name in curves) >= least, group
    for name in curves:
        assert [row["epoch"] for row in history if name in row] == list(range(EPOCHS)), name


def test_the_epoch_is_the_x_axis(folder: Path) -> None:
    metrics = [
        record.metric
        for record in offline_records(next(folder.glob("*.wandb")))
        if record.WhichOneof("record_type") == "metric"
    ]
    assert any(metric.glob_name == "val/*" and metric.step_metric == "epoch" for metric in metrics)


def test_the_table_has_one_small_file_an_epoch(folder: Path, history: list[dict[str, object]]) -> None:
    assert [row.get("val/attention_table/_type") for row in history].count("table-file") == EPOCHS
    tables = [json.loads(path.read_text()) for path in folder.glob("files/media/table/**/*.table.json")]
    assert len(tables) == EPOCHS
    assert {row[0] for table in tables for row in table["data"]} == {"epoch 0", "epoch 1", "epoch 2"}
    assert all(len(table["data"]) == 4 for table in tables)
    assert len({tuple(row[1] for row in table["data"]) for table in tables}) == 1


def test_the_highlighted_texts_are_there(folder: Path) -> None:
    pages = [path.read_text() for path in folder.glob("files/media/html/**/*.html")]
    assert len(pages) == EPOCHS
    assert all(page.count("<h2>Example") == 4 and "rgba(" in page for page in pages)


def test_wandb_is_not_imported_without_its_logger(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from lightning_attn.callbacks import AttentionTableCallback, FaithfulnessCallback\n"
        "from tests.helpers.runs import tiny_data, tiny_module, trainer\n"
        "data = tiny_data()\n"
        "callbacks = [FaithfulnessCallback(metrics=['attention/entropy']), AttentionTableCallback()]\n"
        "trainer(pathlib.Path(sys.argv[1]), callbacks=callbacks).fit(tiny_module(data), data)\n"
        "sys.exit('wandb' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
