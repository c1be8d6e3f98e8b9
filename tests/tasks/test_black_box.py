"""`BlackBoxExplainer`: a selector learns what a trained network says, and that network recognises the selection."""

from __future__ import annotations

import copy
import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_attn.attention import TopKSelection
from lightning_attn.callbacks import BestAndLastCheckpoint, ShortcutProbe
from lightning_attn.cli.commands import main
from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.data.bags import BagDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.mitigations import (
    AttentionDropout,
    Compose,
    InstanceWeighting,
    MaskedFineTuning,
    Mitigation,
    RandomMixing,
    RandomPretraining,
    UniformSubset,
)
from lightning_attn.networks import PooledNetwork
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.tasks import AttentionClassifier, BlackBoxExplainer
from lightning_attn.types import Batch, DataSchema
from tests.helpers.commands import TINY, assert_same_training, run, write_config
from tests.helpers.runs import bag_module, tiny_checkpoint, tiny_data, tiny_module, trainer

ADAM = partial(torch.optim.Adam, lr=2e-2)
K = 3


@pytest.fixture(scope="module")
def data() -> SyntheticReviewsDataModule:
    return tiny_data(train=48)


@pytest.fixture(scope="module")
def box(data: SyntheticReviewsDataModule, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained black box, which is sure of what it says, and says each class of half of the texts."""
    module = tiny_module(data, sharpness=3.0)
    with torch.no_grad():
        module.network.head.layers.weight.mul_(10)
        logits = module.network.eval()(whole(data, "train")).logits
        module.network.head.layers.bias.sub_(logits.median(dim=0).values)
    return tiny_checkpoint(tmp_path_factory.mktemp("box"), module, data)


def explainer(box: str, mitigation: Mitigation | None = None, dropout: float = 0.0) -> BlackBoxExplainer:
    torch.manual_seed(1)
    network = PooledNetwork(BiLSTM(8, 4, values="local", dropout=dropout), TopKSelection(K))
    return BlackBoxExplainer(network, box, mitigation, ADAM)


def ready(box: str, data: SyntheticReviewsDataModule, folder: Path, **arguments: Any) -> BlackBoxExplainer:
    module = explainer(box, **arguments)
    module.trainer = trainer(folder)
    module.trainer.datamodule = data  # type: ignore[attr-defined]
    module.setup("fit")
    return module


def whole(data: SyntheticReviewsDataModule, split: str) -> Batch:
    return data.dataset(split)[range(len(data.dataset(split)))]


def test_the_loss_is_the_cross_entropy_to_what_the_black_box_says(
    box: str, data: SyntheticReviewsDataModule, tmp_path: Path
) -> None:
    module, batch = ready(box, data, tmp_path), whole(data, "train")
    black_box = TrainedNetwork.read(box).network
    said = black_box(batch).logits.softmax(dim=-1)
    assert said[:, 0].std() > 0.1, "the black box says different things"
    soft_target = module.soft_target(batch)
    torch.testing.assert_close(soft_target, said)
    assert not soft_target.requires_grad
    logits = torch.randn(len(batch), 2)
    expected = -(said * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
    torch.testing.assert_close(module.loss(logits, soft_target), expected)


def test_figures_are_agreement_with_the_black_box_and_with_the_labels(
    box: str, data: SyntheticReviewsDataModule, tmp_path: Path
) -> None:
    module = explainer(box)
    runner = trainer(tmp_path, callbacks=[ShortcutProbe(metrics=["post_hoc_accuracy"])])
    runner.fit(module, data)
    batch, black_box = whole(data, "val"), TrainedNetwork.read(box).network
    with torch.no_grad():
        output = module.network.eval()(batch)
        said = black_box(batch).logits.softmax(dim=-1)
        alone = probabilities(black_box, batch, (output.attention > 0)[:, None] | batch.special[:, None])[:, 0]
    found = {name: float(value) for name, value in runner.callback_metrics.items()}
    predicted = output.logits.argmax(dim=-1)
    assert found["val/fidelity"] == pytest.approx((predicted == said.argmax(dim=-1)).float().mean().item())
    assert found["val/accuracy"] == pytest.approx((predicted == batch.target).float().mean().item())
    loss = -(said * output.logits.log_softmax(dim=-1)).sum(dim=-1).mean().item()
    assert found["val/loss"] == pytest.approx(loss, rel=1e-5)
    agree = (alone.argmax(dim=-1) == said.argmax(dim=-1)).float().mean().item()
    assert found["val/shortcut/post_hoc_accuracy"] == pytest.approx(agree)


class Watching(MaskedFineTuning):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__(share=1.0)
        self.seen: list[tuple[Batch, Batch]] = []

    def perturb(self, batch: Batch) -> Batch:
        """Replace tokens."""
        self.seen.append((batch, changed := super().perturb(batch)))
        return changed


def test_the_black_box_reads_the_unchanged_text_and_stays_as_it_is(
    box: str, data: SyntheticReviewsDataModule, tmp_path: Path
) -> None:
    watching = Watching()
    module = explainer(box, watching)
    trainer(tmp_path).fit(module, data)
    black_box = TrainedNetwork.read(box).network
    assert any(not torch.equal(text.inputs, changed.inputs) for text, changed in watching.seen)
    for text, changed in watching.seen:
        torch.testing.assert_close(text.target, black_box(text).logits.softmax(dim=-1))
        assert text.target is changed.target
    assert not module.explained.training
    for name, value in module.explained.state_dict().items():
        assert torch.equal(value, black_box.state_dict()[name])
    assert all(not parameter.requires_grad for parameter in module.explained.parameters())
    theirs = {id(parameter) for parameter in module.explained.parameters()}
    assert not theirs & {id(parameter) for parameter in module.parameters()}, "it is no part of the module"
    assert not any("explained" in name or "_trained" in name for name in module.state_dict())


def test_a_network_at_hand_is_no_part_of_the_module_either(
    box: str, data: SyntheticReviewsDataModule, tmp_path: Path
) -> None:
    network = TrainedNetwork.read(box).network
    module = BlackBoxExplainer(PooledNetwork(BiLSTM(8, 4, values="local"), TopKSelection(K)), network, None, ADAM)
    trainer(tmp_path).fit(module, data)
    assert module.explained is network
    assert not {id(parameter) for parameter in network.parameters()} & {id(one) for one in module.parameters()}
    assert not any("black_box" in name for name in module.state_dict())


MITIGATIONS = {
    "dropout": AttentionDropout,
    "mixing": RandomMixing,
    "pretraining": lambda: RandomPretraining(epochs=1),
    "weighting": lambda: InstanceWeighting(warmup_steps=3),
    "masked": MaskedFineTuning,
    "both": lambda: Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=3)]),
    "more": lambda: Compose([RandomMixing(), InstanceWeighting(warmup_steps=3)]),
}


@pytest.mark.parametrize("name", MITIGATIONS)
def test_every_mitigation_learns_from_it(name: str, box: str, data: SyntheticReviewsDataModule, tmp_path: Path) -> None:
    module = explainer(box, MITIGATIONS[name]())
    runner = trainer(tmp_path, max_epochs=4, limit_val_batches=2)
    runner.fit(module, data)
    found = {key: float(value) for key, value in runner.callback_metrics.items()}
    assert all(value == value for value in found.values()), "nothing is NaN"
    assert ("mitigation/weight_max" in found) == (name in ("weighting", "both", "more"))
    said = module.soft_target(whole(data, "train"))
    with torch.no_grad():
        logits = module.network.eval()(whole(data, "train")).logits
    constant = said.mean(dim=0).log().expand_as(said)
    assert module.loss(logits, said) < module.loss(constant, said), "more than the mean answer was learned"


def test_the_best_epoch_is_that_of_the_largest_agreement(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    box = run("fit", config, tmp_path / "box", "--trainer.max_epochs=3", "--model.init_args.mitigation=null")
    module = {"class_path": "BlackBoxExplainer", "init_args": {**TINY["model"]["init_args"], "mitigation": None}}
    module["init_args"]["black_box"] = str(box / "checkpoints" / "best.ckpt")
    (tmp_path / "two").mkdir()
    explaining = write_config(tmp_path / "two", model=module)
    folder = run("fit", explaining, tmp_path / "runs", "--trainer.max_epochs=4")
    with (folder / "metrics.csv").open() as file:
        fidelity = [float(row["val/fidelity"]) for row in csv.DictReader(file) if row.get("val/fidelity")]
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert len(fidelity) == 4
    assert best["epoch"] == fidelity.index(max(fidelity))
    # A run that was stopped goes on as if it had not been, and a checkpoint is validated against the same black box.
    half = run("fit", explaining, tmp_path / "half", "--trainer.max_epochs=2")
    last = half / "checkpoints" / "last.ckpt"
    resumed = run("fit", explaining, tmp_path / "more", "--trainer.max_epochs=4", f"--ckpt_path={last}")
    assert_same_training(folder, resumed)
    checked = run("validate", folder / "config.yaml", tmp_path / "v", f"--ckpt_path={folder}/checkpoints/best.ckpt")
    with (checked / "metrics.csv").open() as file:
        (row,) = list(csv.DictReader(file))
    assert float(row["val/fidelity"]) == pytest.approx(max(fidelity))


def test_the_default_is_still_the_smallest_loss() -> None:
    assert (AttentionClassifier.monitor, AttentionClassifier.mode) == ("val/loss", "min")
    ours = BestAndLastCheckpoint()
    assert (ours.monitor, ours.mode) == ("val/loss", "min")


def test_a_selection_explains_the_black_box_better_than_a_random_one(tmp_path: Path) -> None:
    """From the command line: train a black box, then a selector of three words; ask the black box about them."""
    configs = Path(__file__).parents[2] / "configs"
    common = [f"--trainer.default_root_dir={tmp_path}", "--wandb=disabled", "--trainer.accelerator=cpu"]
    common += ["--trainer.devices=1", "--trainer.max_epochs=5", "--data.init_args.train_size=800"]
    none = ["--config", str(configs / "mitigations/none.yaml")]
    base = ["fit", "--config", str(configs / "quickstart.yaml"), *none, *common]
    assert main([*base, "--trainer.callbacks=null"]) == 0
    (box,) = tmp_path.glob("*/checkpoints/best.ckpt")
    overlays = ["attention/top_k.yaml", "shortcut/explain_black_box.yaml"]
    options = [part for overlay in overlays for part in ("--config", str(configs / overlay))]
    options += [f"--model.init_args.black_box={box}", "--trainer.callbacks=null"]
    options += [f"--model.init_args.network.init_args.attention.init_args.k={K}"]
    assert main([*base, *options]) == 0
    (found,) = [path for path in tmp_path.glob("*/checkpoints/best.ckpt") if path != box]
    trained, black_box = TrainedNetwork.read(found), TrainedNetwork.read(box).network
    data = SyntheticReviewsDataModule(train_size=800, test_size=400)
    data.prepare_data()
    data.setup()
    batch = whole(data, "test")
    with torch.no_grad():
        output, said = trained.network(batch), black_box(batch).logits.argmax(dim=-1)
        random = UniformSubset(K).sample(output.attention, batch)
    keep = torch.stack([output.attention > 0, random > 0], dim=1) | batch.special[:, None]
    agree = (probabilities(black_box, batch, keep).argmax(dim=-1) == said[:, None]).double().mean(dim=0)
    assert (said == batch.target).double().mean() > 0.85
    assert (output.logits.argmax(dim=-1) == said).double().mean() > 0.85
    assert agree[0] > agree[1] + 0.15


def broken(box: str, folder: Path, **changes: Any) -> str:
    """The black box's checkpoint with parts of it changed."""
    content = copy.deepcopy(torch.load(box, weights_only=True))
    for name, change in changes.items():
        change(content[name])
    torch.save(content, folder / "broken.ckpt")
    return str(folder / "broken.ckpt")


def other_vocabulary(content: dict[str, Any]) -> None:
    content["processor"]["vocabulary"][5:7] = reversed(content["processor"]["vocabulary"][5:7])


def with_nan(content: dict[str, torch.Tensor]) -> None:
    content["network.head.layers.bias"][0] = torch.nan


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"schema": lambda schema: schema.update(class_names=("bad", "good"))},
            r"trained for classes \('bad', 'good'\), but the data have \('negative', 'positive'\); train it",
        ),
        ({"data": other_vocabulary}, "trained with another vocabulary of the same size"),
        ({"state_dict": with_nan}, "holds NaN or infinity among its weights: its training diverged"),
    ],
    ids=["classes", "vocabulary", "nan"],
)
def test_a_black_box_that_says_nothing_of_these_data_is_refused(
    changes: dict[str, Any], sentence: str, box: str, data: SyntheticReviewsDataModule, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        trainer(tmp_path).fit(explainer(broken(box, tmp_path, **changes)), data)
    probe = ShortcutProbe(metrics=["post_hoc_accuracy"], black_box=broken(box, tmp_path, **changes))
    with pytest.raises(InputError, match=sentence):
        trainer(tmp_path, callbacks=[probe]).fit(tiny_module(data), data)


def test_a_black_box_of_shorter_texts_is_welcome(box: str, data: SyntheticReviewsDataModule, tmp_path: Path) -> None:
    file = broken(box, tmp_path, data=lambda content: content["processor"].update(max_length=9))
    assert ready(file, data, tmp_path).explained is not None


def test_a_missing_file_several_labels_and_bags_are_refused(
    box: str, data: SyntheticReviewsDataModule, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="There is no checkpoint"):
        trainer(tmp_path).fit(explainer(str(tmp_path / "none.ckpt")), data)
    with pytest.raises(InputError, match=r"call setup\(stage\)"):
        _ = explainer(box).explained
    several = explainer(box)
    several.network.build(DataSchema(num_classes=2, multi_label=True, vocabulary_size=30))
    several.trainer = trainer(tmp_path)
    with pytest.raises(InputError, match="an example of these data may have several labels"):
        several.setup("validate")
    bags = BagDataModule(train_size=4, val_size=1, test_size=1)
    bags.setup()
    probe = trainer(tmp_path, callbacks=[ShortcutProbe(metrics=["post_hoc_accuracy"], black_box=box)])
    with pytest.raises(InputError, match="was trained for vocabulary size"):
        probe.validate(bag_module(bags), bags)
