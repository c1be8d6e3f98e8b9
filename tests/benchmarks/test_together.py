"""Networks trained together are those that as many Trainers train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.together import Together, started, train_together, whole
from lightning_attn.attention import GatedAttention
from lightning_attn.callbacks import BestAndLastCheckpoint
from lightning_attn.data.bags import BagDataModule, Conjunction, Digits, FourBags, GaussianClusters, NormalSize
from lightning_attn.encoders import MLP
from lightning_attn.networks import BagNetwork, LinearClassifier, MLPClassifier
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.runs import trainer

EPOCHS, RATE, DECAY = 4, 0.01, 0.01


def bags(kind: str) -> BagDataModule:
    task, modality = {"digits": (Conjunction(), Digits()), "gaussian": (FourBags(), GaussianClusters())}[kind]
    size = NormalSize(6, 2)
    data = BagDataModule(task, modality, size, train_size=40, val_size=24, test_size=8, batch_size=16, seed=3)
    data.setup()
    return data


def network(head: str) -> BagNetwork:
    return BagNetwork(
        MLP((6,)), GatedAttention(4), {"linear": LinearClassifier, "mlp": lambda: MLPClassifier(5)}[head]()
    )


@pytest.mark.parametrize(("kind", "head"), [("digits", "linear"), ("gaussian", "mlp")])
def test_each_is_what_a_trainer_makes_of_it(kind: str, head: str, tmp_path: Path) -> None:
    data = bags(kind)
    together = train_together(started(lambda: network(head), data, range(3)), data, EPOCHS, RATE, DECAY)
    epochs = []
    for seed, start in enumerate(started(lambda: network(head), data, range(3))):
        module = AttentionClassifier(start, optimizer=lambda own: torch.optim.AdamW(own, lr=RATE, weight_decay=DECAY))
        place = tmp_path / str(seed)
        trainer(place, max_epochs=EPOCHS, callbacks=[BestAndLastCheckpoint()], enable_checkpointing=True).fit(
            module, bags(kind)
        )
        (path,) = place.rglob("best.ckpt")
        best = torch.load(path, weights_only=True)
        epochs.append(best["epoch"])
        expected = {name.removeprefix("network."): value for name, value in best["state_dict"].items()}
        for name, value in together.network_of(seed).state_dict().items():
            if name != "attention.direction.bias":  # softmax does not feel it: its gradient is rounding alone
                torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-3, msg=name)
        module.network.load_state_dict(expected)
        test = whole(data, "test")
        logits, scores = together.outputs(test)
        alone = module.network.eval()(test.pack())
        torch.testing.assert_close(logits[seed], alone.logits, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(scores[seed].softmax(-1), alone.attention, atol=1e-5, rtol=1e-3)
    assert min(epochs) > 0  # there was something to choose
    moved = together.parameters["encoder.layers.0.weight"]
    assert (moved[0] - moved[1]).abs().max() > 0.01  # the seed matters


def test_networks_with_buffers_are_refused() -> None:
    data = bags("digits")
    made = started(lambda: network("linear"), data, range(2))
    for one in made:
        one.register_buffer("running", torch.zeros(1))
    with pytest.raises(ValueError, match="running"):
        Together.from_networks(made)
