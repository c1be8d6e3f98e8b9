"""The LightningModule: bit-identical to a plain one without mitigation, frozen parts frozen, checkpoints plain."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import Callback
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_attn.attention import AdditiveAttention
from lightning_attn.data import SyntheticReviewsDataModule, WordProcessor
from lightning_attn.encoders import BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.mitigations import Compose, InstanceWeighting, Mitigation, NoMitigation, RandomPretraining
from lightning_attn.networks import PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.toys import toy_batch


def loader(batches: list[Batch]) -> DataLoader:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


TRAIN = loader([toy_batch(seed=seed) for seed in range(6)])
VALIDATION = loader([toy_batch(seed=seed) for seed in range(2)])


def network(schema: DataSchema | None = None, dropout: float = 0.3) -> PooledNetwork:
    torch.manual_seed(0)
    built = PooledNetwork(BiLSTM(6, 4, values="local", dropout=dropout), AdditiveAttention())
    return built.build(schema or DataSchema(num_classes=2, vocabulary_size=30))


def trainer(folder: Path, epochs: int = 3, **arguments: Any) -> Trainer:
    defaults = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        accelerator="cpu",
        enable_model_summary=False,
        **defaults | arguments,
    )


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


class Plain(LightningModule):
    """The same network trained without any of our machinery."""

    def __init__(self, inner: PooledNetwork) -> None:
        super().__init__()
        self.network = inner

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch).logits, batch.target)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.network(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adam(self.parameters())


@pytest.mark.parametrize("mitigation", [None, NoMitigation(), Compose([NoMitigation()])], ids=["none", "No", "Compose"])
def test_without_mitigation_training_is_bit_identical_to_a_plain_module(
    mitigation: Mitigation | None, tmp_path: Path
) -> None:
    plain = Plain(network())
    seed_everything(7, verbose=False)
    trainer(tmp_path).fit(plain, TRAIN, VALIDATION)
    ours = AttentionClassifier(network(), mitigation, optimizer=adam)
    seed_everything(7, verbose=False)
    trainer(tmp_path).fit(ours, TRAIN, VALIDATION)
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, ours.network.state_dict()[name]), name


class Watch(Callback):
    """Keeps the weights of every epoch's end and what was frozen in it."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.training: list[bool] = []

    def on_train_batch_end(self, trainer: Trainer, module: AttentionClassifier, *_: Any) -> None:
        self.training.append(module.network.encoder.dropout.training)

    def on_train_epoch_end(self, trainer: Trainer, module: AttentionClassifier) -> None:
        self.weights.append({name: value.clone() for name, value in module.network.named_parameters()})


def test_each_part_learns_in_its_phase_and_frozen_parts_do_not_move_by_one_bit(tmp_path: Path) -> None:
    watch = Watch()
    module = AttentionClassifier(network(), RandomPretraining(epochs=1), optimizer=adam)
    start = {name: value.clone() for name, value in module.network.named_parameters()}
    trainer(tmp_path, callbacks=[watch]).fit(module, TRAIN, VALIDATION)
    scorer = {name for name in start if name.startswith(("attention.", "encoder.lstm."))}
    first, last = watch.weights[0], watch.weights[-1]
    for name in start:
        assert torch.equal(first[name], start[name]) is (name in scorer), name
        assert torch.equal(last[name], first[name]) is (name not in scorer), name
    assert watch.training == [True] * 6 + [False] * 12, "dropout of a frozen part is off"


def test_finetuning_moves_the_value_path_a_share_of_the_way(tmp_path: Path) -> None:
    """With SGD a tenth of the rate is a tenth of the step."""

    def first_step(rate: float) -> Tensor:
        mitigation = RandomPretraining(epochs=1, then="finetune", finetune_rate=rate)
        module = AttentionClassifier(network(dropout=0.0), mitigation, lambda p: torch.optim.SGD(p, lr=0.5))
        watch = Watch()
        trainer(tmp_path, epochs=2, callbacks=[watch]).fit(module, loader([toy_batch()]))
        return watch.weights[1]["head.layers.weight"] - watch.weights[0]["head.layers.weight"]

    torch.testing.assert_close(first_step(0.1), first_step(1.0) / 10, atol=1e-6, rtol=1e-4)


def test_weights_of_the_examples_enter_the_loss() -> None:
    module = AttentionClassifier(network())
    logits, target = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    single = F.cross_entropy(logits, target, reduction="none")
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])
    torch.testing.assert_close(module.loss(logits, target, weights), (weights * single).mean())
    assert module.loss(logits, target) == F.cross_entropy(logits, target)


@pytest.mark.parametrize("multi_label", [False, True])
def test_logged_metrics_equal_scikit_learn(multi_label: bool, tmp_path: Path) -> None:
    schema = DataSchema(num_classes=3, multi_label=multi_label, vocabulary_size=30)
    batches = [toy_batch(seed=s, classes=3, multi_label=multi_label, lengths=range(1, 12)) for s in range(5)]
    module = AttentionClassifier(network(schema)).eval()
    logged = trainer(tmp_path).validate(module, loader(batches), verbose=False)[0]
    with torch.no_grad():
        logits = torch.cat([module(batch).logits for batch in batches])
    target = torch.cat([batch.target for batch in batches])
    probability = schema.probabilities(logits)
    if multi_label:
        predicted, loss = (probability > 0.5).long(), F.binary_cross_entropy_with_logits(logits, target)
    else:
        predicted, loss = probability.argmax(dim=-1), F.cross_entropy(logits, target)
    expected = {
        "val/loss": loss.item(),
        "val/accuracy": (predicted == target).float().mean().item(),
        "val/f1": f1_score(target, predicted, average="macro", zero_division=0),
        "val/auroc": roc_auc_score(target, probability, average="macro", multi_class="ovr"),
    }
    assert logged == pytest.approx(expected, abs=1e-5)


def test_mitigation_figures_are_logged_in_the_epochs_that_have_them(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    class Names(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
            seen.append({name for name in trainer.callback_metrics if name.startswith(("mitigation/", "train/"))})

    mitigation = Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=1)])
    module = AttentionClassifier(network(), mitigation, optimizer=adam)
    run = trainer(tmp_path, epochs=2, callbacks=[Names()])
    run.fit(module, TRAIN, VALIDATION)
    weighting = {f"mitigation/{name}" for name in mitigation.metrics()}
    assert seen[0] == {"train/loss", "mitigation/phase"}
    assert seen[1] == {"train/loss", "mitigation/phase"} | weighting
    assert 0 < run.callback_metrics["mitigation/effective_sample_size"] <= 1
    assert run.callback_metrics["mitigation/phase"] == 1


@pytest.mark.parametrize("mitigated", [False, True])
def test_a_python_checkpoint_loads_without_unpickling(mitigated: bool, tmp_path: Path) -> None:
    def mitigation() -> Mitigation | None:
        return Compose([RandomPretraining(epochs=1), InstanceWeighting()]) if mitigated else None

    module = AttentionClassifier(network(), mitigation(), optimizer=adam)
    run = trainer(tmp_path, epochs=2)
    run.fit(module, TRAIN, VALIDATION)
    run.save_checkpoint(tmp_path / "x.ckpt")
    fresh = PooledNetwork(BiLSTM(6, 4, values="local", dropout=0.3), AdditiveAttention())
    loaded = AttentionClassifier.load_from_checkpoint(tmp_path / "x.ckpt", network=fresh, mitigation=mitigation())
    for name, value in module.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]) if isinstance(value, Tensor) else True, name
    assert loaded.mitigation.phase == module.mitigation.phase
    assert run.test(module, VALIDATION, ckpt_path=tmp_path / "x.ckpt", verbose=False)


def test_nothing_stays_frozen_after_training(tmp_path: Path) -> None:
    module = AttentionClassifier(network(), RandomPretraining(epochs=1), optimizer=adam)
    trainer(tmp_path, epochs=2).fit(module, TRAIN, VALIDATION)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_training_that_ends_before_pretraining_is_warned_about(tmp_path: Path) -> None:
    module = AttentionClassifier(network(), Compose([RandomPretraining(epochs=2), InstanceWeighting()]))
    with pytest.warns(UserWarning, match=r"Set --trainer\.max_epochs above 2"):
        trainer(tmp_path, epochs=2).fit(module, TRAIN, VALIDATION)


def test_the_same_mitigation_may_be_assigned_again_but_not_to_another_network() -> None:
    built, mitigation = network(), InstanceWeighting()
    AttentionClassifier(built, mitigation)
    AttentionClassifier(built, mitigation)
    assert len(mitigation.classifiers) == 2
    with pytest.raises(ValueError, match="belongs to a network already"):
        AttentionClassifier(network(), mitigation)


def test_data_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    def data(seed: int) -> SyntheticReviewsDataModule:
        processor = WordProcessor(max_size=40)
        return SyntheticReviewsDataModule(40, 10, 10, seed=seed, negation=float(seed), processor=processor)

    module = AttentionClassifier(PooledNetwork(BiLSTM(6, 4)))
    run = trainer(tmp_path, epochs=1)
    run.fit(module, data(0))
    run.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="another vocabulary"):
        run.test(module, data(1), verbose=False)
    restored = data(1)
    restored.restore(torch.load(tmp_path / "x.ckpt", weights_only=True)["data"])
    assert run.test(module, restored, ckpt_path=tmp_path / "x.ckpt", verbose=False)


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    plain = Plain(network())
    run = trainer(tmp_path, epochs=1)
    run.fit(plain, TRAIN)
    run.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(InputError, match="not written by an AttentionClassifier"):
        AttentionClassifier.load_from_checkpoint(tmp_path / "plain.ckpt", network=network())


def test_a_network_for_other_classes_is_refused(tmp_path: Path) -> None:
    module = AttentionClassifier(network())
    run = trainer(tmp_path, epochs=1)
    run.fit(module, TRAIN)
    run.save_checkpoint(tmp_path / "x.ckpt")
    three = network(DataSchema(num_classes=3, vocabulary_size=30))
    with pytest.raises(InputError, match="made for classes 3, the data have 2"):
        AttentionClassifier.load_from_checkpoint(tmp_path / "x.ckpt", network=three)
