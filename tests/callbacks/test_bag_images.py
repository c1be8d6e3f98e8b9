"""`BagImagesCallback`: the same bags every epoch, with the weights that the network gives."""

import json
from pathlib import Path

import pytest
import torch

from lightning_attn.callbacks import BagImagesCallback
from lightning_attn.data.bags import BagDataModule, Digits, Presence
from lightning_attn.encoders import MLP, LeNet
from lightning_attn.errors import InputError
from lightning_attn.networks import BagNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.runs import bag_module, tiny_bags, trainer


def digits() -> BagDataModule:
    data = BagDataModule(Presence(), Digits(), train_size=24, val_size=21, test_size=21, batch_size=4)
    data.setup("fit")
    return data


def shown(folder: Path, split: str) -> dict:
    assert {path.name for path in (folder / "bags" / split).iterdir()} == {"bags.json", "bags.png", "bags.svg"}
    return json.loads((folder / "bags" / split / "bags.json").read_text())


def test_weights_and_keys_are_those_of_a_direct_call(tmp_path: Path) -> None:
    data = digits()
    module = AttentionClassifier(BagNetwork(LeNet(16)).build(data.schema))
    run = trainer(tmp_path, callbacks=[BagImagesCallback(max_examples=5)])
    run.test(module, data, verbose=False)
    found = shown(tmp_path, "test")
    assert found["moment"] == "test"
    assert len(found["bags"]) == 5
    batch = data.dataset("test")[range(21)].padded()
    with torch.no_grad():
        output = module.network.eval()(batch)
    for view in found["bags"]:
        row = view["bag"]
        inner = batch.inner[row]
        torch.testing.assert_close(torch.tensor(view["weights"]), output.attention[row, inner], atol=1e-5, rtol=0)
        assert view["keys"] == batch.evidence[row, inner].tolist()
        assert view["label"] == data.schema.class_names[int(batch.target[row])]
        assert view["predicted"] == data.schema.class_names[int(output.logits[row].argmax())]


def test_every_epoch_shows_the_same_bags(tmp_path: Path) -> None:
    data = digits()
    seen = []

    class Reader(BagImagesCallback):
        def on_validation_epoch_end(self, trainer, pl_module) -> None:
            super().on_validation_epoch_end(trainer, pl_module)
            if not trainer.sanity_checking:
                seen.append(shown(tmp_path, "val"))

    run = trainer(tmp_path, max_epochs=2, callbacks=[Reader(max_examples=3)])
    run.fit(AttentionClassifier(BagNetwork(LeNet(16))), data)
    assert [found["moment"] for found in seen] == ["epoch 0", "epoch 1"]
    first, second = ([view["bag"] for view in found["bags"]] for found in seen)
    assert first == second
    assert seen[0] != seen[1]


def test_features_that_are_no_images_are_refused_in_a_sentence(tmp_path: Path) -> None:
    data = tiny_bags()
    with pytest.raises(InputError, match=r"shows bags of images.* features of shape \(\d+,\): leave it out"):
        trainer(tmp_path, callbacks=[BagImagesCallback()]).validate(bag_module(data, BagNetwork(MLP((8,)))), data)


@pytest.mark.parametrize("name", ["max_examples", "most", "every_n_epochs"])
def test_counts_start_at_one(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} of at least 1, not 0"):
        BagImagesCallback(**{name: 0})
