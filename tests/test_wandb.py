"""An offline Weights & Biases run, read back from its files."""

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from wandb.proto import wandb_internal_pb2 as pb

from lightning_attn.callbacks import AttentionTableCallback, FaithfulnessCallback
from lightning_attn.runs.loggers import start_wandb, use_epoch_axis
from tests.helpers.runs import tiny_data, tiny_module, trainer

EPOCHS = 3


def offline_records(path: Path) -> Iterator[pb.Record]:
    """Records of a .wandb file: a log in blocks of 32 KiB, each piece behind a checksum, a length and a kind."""
    data, position, parts = path.read_bytes(), 7, []
    while position + 7 <= len(data):
        if (room := 32768 - position % 32768) < 7:  # no piece starts in the last bytes of a block
            position += room
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        parts.append(data[position + 7 : position + 7 + size])
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield pb.Record.FromString(b"".join(parts))
            parts = []


def finished_run(place: Path) -> Path:
    """Finish the run; its folder once all is written, by a process that may still be at it on a busy machine."""
    wandb.finish()
    folder = next(place.glob("wandb/offline-run-*"))
    path, until = next(folder.glob("*.wandb")), time.monotonic() + 60
    while "exit" not in [record.WhichOneof("record_type") for record in offline_records(path)]:
        assert time.monotonic() < until, f"{path} does not come to its end"
        time.sleep(0.1)
    return folder


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
