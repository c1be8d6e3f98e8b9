"""`AttentionClassifier` on packed bags: it learns, evaluates, predicts and comes back from a checkpoint."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_attn.cli.commands import main
from lightning_attn.data.bags import BagDataModule, FixedSize, FourBags, GaussianClusters, Presence
from lightning_attn.encoders import MLP
from lightning_attn.networks import BagNetwork, ClassBagNetwork, InstanceNetwork, MaxBagNetwork, MultiHeadBagNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.runs import loader, trainer
from tests.helpers.toy_bags import toy_bags

ADAM = partial(torch.optim.Adam, lr=1e-2)
NETWORKS = [BagNetwork, MultiHeadBagNetwork, ClassBagNetwork, MaxBagNetwork]


def shifted(sizes: list[int], seed: int, multi_label: bool) -> Batch:
    """Bags in which one instance carries each class of the target, as a shift of a feature of its own."""
    batch = toy_bags(sizes, seed, multi_label=multi_label)
    marks = batch.target if multi_label else torch.eye(3)[batch.target]
    inputs = batch.inputs.clone()
    inputs[:, 0, :3] += 6 * marks
    return batch.replace(inputs=inputs).pack()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_it_learns_and_measures_packed_bags(kind: type[InstanceNetwork], multi_label: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    train = [shifted([5, 3, 8, 4, 6, 2] * 4, seed, multi_label) for seed in range(8)]
    held_out = shifted([5, 3, 8, 4, 6, 2] * 10, 99, multi_label)
    network = kind(MLP((16,))).build(DataSchema(num_classes=3, multi_label=multi_label, feature_shape=(6,)))
    module = AttentionClassifier(network, optimizer=ADAM)
    run = trainer(tmp_path, max_epochs=15)
    run.fit(module, loader(*train))
    run.test(module, loader(held_out), verbose=False)
    with torch.no_grad():
        probabilities = network.schema.probabilities(network.eval()(held_out.padded()).logits)
    expected = roc_auc_score(held_out.target, probabilities, multi_class="ovr", average="macro")
    assert float(run.callback_metrics["test/auroc"]) == pytest.approx(expected, abs=1e-5)
    assert expected > 0.9


def test_several_classes_of_generated_bags_are_learned_and_predicted(tmp_path: Path) -> None:
    data = BagDataModule(FourBags(), GaussianClusters(), FixedSize(6), train_size=60, val_size=20, test_size=21)
    torch.manual_seed(0)
    module = AttentionClassifier(BagNetwork(MLP((16,))), optimizer=ADAM)
    run = trainer(tmp_path, max_epochs=2, enable_checkpointing=True)
    run.fit(module, data)
    parts = [part for part in run.predict(module, data) if part is not None]
    assert sorted(torch.cat([part["index"] for part in parts]).tolist()) == list(range(21))
    assert all(part["probabilities"].shape[1] == 4 for part in parts)
    sums = torch.cat([part["attention"].sum(dim=1) for part in parts])
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_a_checkpoint_of_bags_comes_back(tmp_path: Path) -> None:
    data = BagDataModule(Presence(), GaussianClusters(), FixedSize(6), train_size=20, val_size=10, test_size=9)
    torch.manual_seed(0)
    module = AttentionClassifier(BagNetwork(MLP((16,))))
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, data)
    run.save_checkpoint(tmp_path / "bags.ckpt")
    again = AttentionClassifier.load_from_checkpoint(
        tmp_path / "bags.ckpt", network=BagNetwork(MLP((16,))), weights_only=True
    )
    batch = data.dataset("val")[range(10)]
    assert torch.equal(again.network.eval()(batch).logits, module.network.eval()(batch).logits)


def test_a_network_of_bags_is_tested_and_predicts_but_is_not_asked_about_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    config = ["--config", str(Path(__file__).parents[2] / "configs" / "bags" / "digits.yaml")]
    config += [f"--data.init_args.{split}_size=12" for split in ("train", "val", "test")]
    config += ["--trainer.accelerator=cpu", "--trainer.devices=1"]
    assert main(["fit", *config, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path / 'fit'}"]) == 0
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    for command in ("test", "predict"):
        folder = f"--trainer.default_root_dir={tmp_path / command}"
        assert main([command, *config, folder, "--ckpt_path", str(checkpoint)]) == 0
    (written,) = tmp_path.rglob("predictions.jsonl")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(12))
    assert set(rows[0]) == {"index", "prediction", "probabilities", "attention"}
    assert all(sum(row["attention"]) == pytest.approx(1, abs=1e-4) for row in rows)
    capsys.readouterr()
    assert main(["explain", "--ckpt_path", str(checkpoint), "--text", "a film"]) == 2
    assert "its data are not texts" in capsys.readouterr().err
