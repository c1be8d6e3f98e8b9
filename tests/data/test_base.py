import json
import warnings
from pathlib import Path

import jsonargparse
import pytest
from pytorch_lightning.callbacks import BasePredictionWriter, ModelCheckpoint

from lightning_attn import data as data_modules
from lightning_attn.data import SyntheticReviewsDataModule, TextDataModule
from lightning_attn.errors import InputError
from tests.helpers.rows import Recorder, flat, trainer


def reviews(**arguments) -> SyntheticReviewsDataModule:
    return SyntheticReviewsDataModule(
        **{"train_size": 50, "val_size": 21, "test_size": 13, "batch_size": 8, **arguments}
    )


def test_fit_validate_test_and_predict_give_each_row_once(tmp_path: Path) -> None:
    model, run = Recorder(), trainer(tmp_path)
    run.fit(model, datamodule=reviews())
    assert flat(model.seen["train"]) == sorted([*range(50)] * 2)
    assert flat(model.seen["val"]) == sorted([*range(21)] * 2)
    assert model.seen["train"][:7] != model.seen["train"][7:]
    for stage, count in (("validate", 21), ("test", 13)):
        fresh = Recorder()
        getattr(trainer(tmp_path), stage)(fresh, datamodule=reviews(), verbose=False)
        assert flat(fresh.seen["val" if stage == "validate" else stage]) == list(range(count))
    assert flat(trainer(tmp_path).predict(Recorder(), datamodule=reviews())) == list(range(13))


def test_predictions_can_be_written_by_a_callback(tmp_path: Path) -> None:
    class Writer(BasePredictionWriter):
        rows: list[list[int]] = []  # noqa: RUF012, one run only

        def write_on_epoch_end(self, trainer, module, predictions, indices) -> None:
            self.rows += predictions

    writer = Writer("epoch")
    trainer(tmp_path, callbacks=[writer]).predict(Recorder(), datamodule=reviews(), return_predictions=False)
    assert flat(writer.rows) == list(range(13))


@pytest.mark.parametrize(("stop", "workers"), [(3, 0), (7, 0), (10, 0), (10, 1), (14, 0)])
def test_a_run_resumed_at_any_step_sees_the_batches_that_are_left(tmp_path: Path, stop: int, workers: int) -> None:
    whole = Recorder()
    trainer(tmp_path, max_epochs=3).fit(whole, datamodule=reviews())
    first, second = Recorder(), Recorder()
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    run = trainer(tmp_path, max_epochs=3, max_steps=stop, callbacks=[saver], enable_checkpointing=True)
    run.fit(first, datamodule=reviews(num_workers=workers))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*your dataloader is not resumable")
        resumed = reviews(num_workers=workers)
        trainer(tmp_path, max_epochs=3).fit(second, datamodule=resumed, ckpt_path=tmp_path / f"step={stop}.ckpt")
    assert first.seen["train"] + second.seen["train"] == whole.seen["train"]


def test_overfitting_on_a_few_batches_runs(tmp_path: Path) -> None:
    model = Recorder()
    trainer(tmp_path, overfit_batches=2).fit(model, datamodule=reviews())
    assert model.seen["train"][:2] == model.seen["train"][2:]


def test_training_goes_without_validation_but_validate_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"a {row}", "label": row % 2}) + "\n" for row in range(9)))
    data = TextDataModule(path, val_share=0.0, test_share=0.0)
    model = Recorder()
    trainer(tmp_path).fit(model, datamodule=data)
    assert model.seen["val"] == []
    with pytest.raises(InputError, match="no val split; they have train"):
        trainer(tmp_path).validate(model, datamodule=data)
    with pytest.raises(InputError, match="no test split"):
        trainer(tmp_path).predict(model, datamodule=data)


def test_loaders_work_without_a_trainer() -> None:
    data = reviews(evaluation_batch_size=20)
    with pytest.raises(InputError, match="call prepare_data"):
        data.train_dataloader()
    data.setup()
    assert [len(batch) for batch in data.val_dataloader()] in ([1, 20], [20, 1])
    assert sum(len(batch) for batch in data.train_dataloader()) == 50


def test_notes_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    data = reviews()
    with caplog.at_level("INFO"):
        for stage in ("fit", "validate", "test"):
            data.setup(stage)
    assert len([record for record in caplog.records if "Synthetic reviews" in record.message]) == 1
    assert "train: 50 texts (negative 25, positive 25)." in data.describe()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("batch_size", 0, "needs batch_size of at least 1, not 0"),
        ("evaluation_batch_size", -2, "needs evaluation_batch_size of at least 1, not -2"),
        ("seed", -1, "needs seed of at least 0, not -1"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, value: int, problem: str) -> None:
    with pytest.raises(InputError, match=f"^SyntheticReviewsDataModule {problem}"):
        reviews(**{name: value})


@pytest.mark.parametrize("name", [name for name in data_modules.__all__ if name.endswith("DataModule")])
def test_the_command_line_lists_the_arguments_of_the_base_classes_too(name: str) -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(getattr(data_modules, name), "data")
    listed = {action.dest.removeprefix("data."): action for action in parser._actions if action.dest != "help"}
    assert {"batch_size", "seed", "num_workers", "evaluation_batch_size"} <= set(listed)
    assert all(action.help for action in listed.values())
    shortest = {"SyntheticReviewsDataModule", "SQuADDataModule"}  # nothing is cached; the tokenizer brings its vectors
    if name not in shortest and not name.startswith(("Bag", "Digit", "Attention")):
        assert {"processor", "word_vectors", "cache_dir"} <= set(listed)
    assert listed["batch_size"].default == {"BabiDataModule": 50, "SQuADDataModule": 16}.get(name, 32)
