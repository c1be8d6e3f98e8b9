"""Bags in a Trainer: every bag once, on any number of processes, resumed anywhere, and after a checkpoint."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.data.bags import (
    BagDataModule,
    Conjunction,
    Digits,
    ExpressionCounts,
    FixedSize,
    FourBags,
    GaussianClusters,
    NormalSize,
    Presence,
)
from lightning_attn.errors import InputError
from lightning_attn.networks import BagNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.rows import Recorder, flat, trainer


def bags(**arguments) -> BagDataModule:
    sizes = {"train_size": 50, "val_size": 21, "test_size": 13, "size": NormalSize(10, 6, 2)}
    return BagDataModule(**{**sizes, "batch_size": 8, "max_instances": 60, **arguments})


def test_fit_validate_test_and_predict_give_each_bag_once(tmp_path: Path) -> None:
    model, run = Recorder(), trainer(tmp_path)
    run.fit(model, datamodule=bags())
    assert flat(model.seen["train"]) == sorted([*range(50)] * 2)
    assert flat(model.seen["val"]) == sorted([*range(21)] * 2)
    half = len(model.seen["train"]) // 2
    assert model.seen["train"][:half] != model.seen["train"][half:]
    assert run.num_training_batches == half
    fresh = Recorder()
    trainer(tmp_path).test(fresh, datamodule=bags(), verbose=False)
    assert flat(fresh.seen["test"]) == list(range(13))
    assert flat(trainer(tmp_path).predict(Recorder(), datamodule=bags())) == list(range(13))


@pytest.mark.parametrize(("stop", "workers"), [(3, 0), (14, 1)])
def test_a_run_resumed_at_any_step_sees_the_batches_that_are_left(tmp_path: Path, stop: int, workers: int) -> None:
    whole = Recorder()
    trainer(tmp_path, max_epochs=3).fit(whole, datamodule=bags())
    first, second = Recorder(), Recorder()
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    run = trainer(tmp_path, max_epochs=3, max_steps=stop, callbacks=[saver], enable_checkpointing=True)
    run.fit(first, datamodule=bags(num_workers=workers))
    resumed = bags(num_workers=workers)
    trainer(tmp_path, max_epochs=3).fit(second, datamodule=resumed, ckpt_path=tmp_path / f"step={stop}.ckpt")
    assert first.seen["train"] + second.seen["train"] == whole.seen["train"]


def test_overfitting_on_a_few_batches_runs(tmp_path: Path) -> None:
    model = Recorder()
    trainer(tmp_path, overfit_batches=2).fit(model, datamodule=bags())
    assert model.seen["train"][:2] == model.seen["train"][2:]


def test_a_network_learns_and_its_checkpoint_tells_the_same_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = bags(train_size=300, val_size=100, test_size=100, size=FixedSize(8), max_instances=None)
    module = AttentionClassifier(BagNetwork(), optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01))
    run = trainer(tmp_path, max_epochs=8)
    run.fit(module, datamodule=data)
    [before] = run.test(module, datamodule=data, verbose=False)
    assert before["test/auroc"] > 0.9
    run.save_checkpoint(tmp_path / "last.ckpt")

    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["data"]
    again, loaded = (
        bags(train_size=300, val_size=100, test_size=100, size=FixedSize(8)),
        AttentionClassifier(BagNetwork()),
    )
    again.restore(state)
    assert again.schema == data.schema
    after = trainer(tmp_path).test(
        loaded, datamodule=again, ckpt_path=tmp_path / "last.ckpt", verbose=False, weights_only=True
    )
    assert after == [pytest.approx(before)]


def test_a_module_in_training_mode_is_validated_in_evaluation_mode(tmp_path: Path) -> None:
    class Watch(Recorder):
        modes: set[bool] = set()  # noqa: RUF012, one run only

        def validation_step(self, batch, number) -> None:
            self.modes.add(self.training)

    model = Watch()
    trainer(tmp_path).fit(model, datamodule=bags())
    assert model.modes == {False}


def test_bags_of_another_shape_than_the_checkpoints_are_refused() -> None:
    data = bags()
    data.setup()
    for other in (ExpressionCounts(), Digits()):
        refused = bags(modality=other)
        refused.restore(data.export())
        with pytest.raises(InputError, match=r"trained on instances of shape \(8,\), but these data have \("):
            refused.setup()


def test_a_checkpoint_on_texts_is_refused() -> None:
    texts = SyntheticReviewsDataModule(train_size=10, val_size=2, test_size=2)
    texts.setup()
    with pytest.raises(InputError, match="trained on texts, and these data are bags"):
        bags().restore(texts.export())


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    module = AttentionClassifier(BagNetwork())
    trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(module, datamodule=bags(task=Conjunction()))
    with pytest.raises(InputError, match="made for classes 2, the data have 4"):
        trainer(tmp_path).test(module, datamodule=bags(task=FourBags()), verbose=False)
    other = bags(task=FourBags())
    other.restore(module.data_state)
    with pytest.raises(
        InputError, match=r"trained on the classes \('negative', 'positive'\), but these data have \('none'"
    ):
        other.setup()


def test_nothing_is_there_before_setup() -> None:
    data = BagDataModule(Presence(), GaussianClusters())
    for what in (lambda: data.schema, lambda: data.splits, data.train_dataloader, data.describe):
        with pytest.raises(InputError, match="BagDataModule has no data yet"):
            what()
    data.setup()
    with pytest.raises(InputError, match="no extra split; they have train, val, test"):
        data.dataset("extra")
