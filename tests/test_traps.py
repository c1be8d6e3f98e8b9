"""What other libraries do silently: each test fails if the trap that it names catches us."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DistributedSampler

import lightning_attn.metrics as metrics
from lightning_attn.callbacks import AttentionTableCallback, FaithfulnessCallback
from lightning_attn.data import BucketBatches, SyntheticReviewsDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.metrics import ExampleMean, LeakedBits, PerExampleMean
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.runs import RecordingLogger, loader, tiny_data, tiny_module, trainer
from tests.helpers.toys import toy_batch, toy_network


class ValidationAsTest(SyntheticReviewsDataModule):
    """Tests on the validation set."""

    def test_dataloader(self):
        return self.val_dataloader()


def test_gradients_in_fit_validate_and_test_agree(tmp_path: Path) -> None:
    """Lightning validates without gradients in fit, and in inference mode elsewhere: autograd fails there."""
    data = ValidationAsTest(train_size=24, val_size=40, test_size=4, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    module = tiny_module(data)
    run = trainer(tmp_path, callbacks=[FaithfulnessCallback(max_examples=30)])
    run.fit(module, data)
    inside = {name.removeprefix("val/"): float(value) for name, value in run.callback_metrics.items()}
    for stage, verb in (("val", run.validate), ("test", run.test)):
        (found,) = verb(module, data, verbose=False)
        found = {name.removeprefix(f"{stage}/"): value for name, value in found.items()}
        assert {name: inside[name] for name in found} == pytest.approx(found, abs=1e-7)
        assert "faithfulness/kendall_gradient" in found


def test_evaluation_is_sharded_by_a_sampler_that_lightning_leaves_alone() -> None:
    """Lightning replaces every sampler that is no DistributedSampler by one that repeats rows; see also test_ddp."""
    shards = [BucketBatches(torch.arange(5).numpy() + 1, 1, shuffle=False, rank=rank, world_size=2) for rank in (0, 1)]
    assert all(isinstance(shard, DistributedSampler) for shard in shards)
    assert sorted(row for shard in shards for rows in shard for row in rows) == [0, 1, 2, 3, 4]


def test_no_rank_is_without_a_batch() -> None:
    """Lightning skips all hooks on a rank without a batch, and the others wait in the next collective call for ever."""
    for rank in range(3):
        shard = BucketBatches(torch.ones(2).long().numpy(), 1, shuffle=False, rank=rank, world_size=3)
        assert len(list(shard)) == len(shard) == 1


def test_an_empty_batch_of_such_a_rank_passes(tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data)
    nothing = data.dataset("val")[[]]
    whole = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
    (expected,) = whole.validate(module, loader(data.dataset("val")[range(5)]), verbose=False)
    for parts in ([nothing, data.dataset("val")[range(5)]], [data.dataset("val")[range(5)], nothing]):
        run = trainer(tmp_path, callbacks=[FaithfulnessCallback()])
        assert run.validate(module, loader(*parts), verbose=False) == [pytest.approx(expected)]
    assert trainer(tmp_path).predict(module, loader(nothing)) == [None]


def test_a_checkpoint_can_be_loaded_back(tmp_path: Path) -> None:
    """A module among the hyper-parameters makes a checkpoint that weights_only loading refuses."""
    data = tiny_data()
    module = AttentionClassifier(PooledNetwork(BiLSTM(8, 6)), RandomPretraining(epochs=1))
    keeper = ModelCheckpoint(tmp_path, monitor="val/loss")
    callbacks = [keeper, FaithfulnessCallback(), AttentionTableCallback()]
    run = trainer(tmp_path, callbacks=callbacks, enable_checkpointing=True)
    run.fit(module, data)
    (tested,) = run.test(datamodule=data, ckpt_path="best", verbose=False)
    loaded = AttentionClassifier.load_from_checkpoint(
        keeper.best_model_path,
        network=PooledNetwork(BiLSTM(8, 6)),
        mitigation=RandomPretraining(epochs=1),
        weights_only=True,
    )
    (again,) = trainer(tmp_path, callbacks=[FaithfulnessCallback()]).test(loaded, data, verbose=False)
    assert again == pytest.approx(tested)


def test_metrics_that_are_equal_at_first_are_not_merged(tmp_path: Path) -> None:
    """MetricCollection merges metrics whose states agree after the first batch, and reports one figure for both."""
    network = toy_network(classes=3)
    batch = toy_batch([6, 8, 9, 5, 7, 4], classes=3)
    answer = network(batch).logits.argmax(dim=-1)
    wrong = batch.replace(target=(answer + 1) % 3)
    uneven = batch.replace(target=torch.where(torch.arange(6) < 4, answer, (answer + 1) % 3))
    (found,) = trainer(tmp_path).validate(AttentionClassifier(network), loader(wrong, uneven), verbose=False)
    assert found["val/accuracy"] == pytest.approx(4 / 12)
    assert found["val/f1"] != pytest.approx(found["val/accuracy"])


def test_no_metric_updates_twice() -> None:
    """``forward`` of a metric whose full_state_update is not False costs two updates, here two sweeps."""
    ours = [kind for kind in vars(metrics).values() if isinstance(kind, type) and issubclass(kind, PerExampleMean)]
    names = {kind.__name__ for kind in ours}
    assert {
        "AnswerRecall",
        "BestAnswers",
        "ChunkMean",
        "ExampleMean",
        "IOUF1",
        "LeakedBits",
        "RiskCoverageGain",
    } <= names
    assert all(kind.full_state_update is False for kind in ours)


@pytest.mark.parametrize("metric", [ExampleMean(), LeakedBits()])
def test_states_of_a_rank_without_examples_have_the_right_shape_and_type(metric: PerExampleMean) -> None:
    """An empty list state is gathered as floats of shape (0,), and gloo aborts if another rank has integers."""
    metric.update(*([torch.ones(1), torch.tensor([3])] if isinstance(metric, ExampleMean) else _attended()))
    metric.reset()
    assert [state.dtype for state in metric.index] == [torch.int64]
    assert [tuple(state.shape) for state in metric.value] == [(0, metric.columns)]


def _attended():
    batch = toy_batch()
    return toy_network()(batch).attention.detach(), batch


def test_the_loss_is_the_mean_over_examples_not_over_batches(tmp_path: Path) -> None:
    """Averages of batch means weigh the last, smaller batch too much."""
    network, parts = toy_network(), (toy_batch([6, 8, 9, 5], seed=1), toy_batch([7], seed=2))
    run = trainer(tmp_path)
    run.validate(AttentionClassifier(network), loader(*parts), verbose=False)
    with torch.no_grad():
        losses = torch.cat([F.cross_entropy(network(part).logits, part.target, reduction="none") for part in parts])
    assert run.callback_metrics["val/loss"] == pytest.approx(float(losses.mean()), rel=1e-6)


def test_a_row_of_padding_alone_gives_no_nan() -> None:
    """Softmax over minus infinity is NaN, which spreads to every example through the gradient."""
    batch = toy_batch([5, 3])
    batch.valid[1] = False
    network = toy_network()
    output = network(batch)
    assert not output.logits.isnan().any()
    output.logits[0].sum().backward()
    assert all(math.isfinite(float(p.grad.sum())) for p in network.parameters() if p.grad is not None)


def test_the_sanity_check_leaves_no_trace(tmp_path: Path) -> None:
    """``self.log`` is muted there, but media and files written directly would look like those of epoch 0."""
    data, logger = tiny_data(), RecordingLogger()
    measured = []

    class Spy(FaithfulnessCallback):
        def _update(self, batch, pl_module):
            measured.append(pl_module.trainer.sanity_checking)
            return super()._update(batch, pl_module)

        def on_train_start(self, trainer, pl_module):
            assert not list(tmp_path.rglob("*.html"))
            assert not logger.rows
            measured.clear()

    run = trainer(
        tmp_path,
        logger=logger,
        num_sanity_val_steps=2,
        callbacks=[Spy(metrics=["attention/entropy"]), AttentionTableCallback()],
    )
    run.fit(tiny_module(data), data)
    assert measured
    assert not any(measured)
    assert len(logger.values("val/attention/entropy")) == 1
