"""Bags per second in training, against torchmil: ``python -m benchmarks.bags``.

The same bags in the same batches, the same network (a linear layer with ReLU, gated attention, a linear head), the same
start, optimiser and hardware: torchmil's ABMIL in its Trainer with its padding collate, ours in Lightning's on packed
batches. Parity first: epoch by epoch both have the same mean loss. Then, in one run, the ratio for several mixes of bag
sizes, with both frameworks and with a bare loop around both networks, and what an instance costs in bags of any size.

Needs torchmil 1.0.2: ``pip install --no-deps torchmil==1.0.2 tensordict einops h5py`` (with its dependencies it would
exchange torch).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmil.data import collate_fn
from torchmil.models import ABMIL
from torchmil.utils import Trainer as TorchmilTrainer

from benchmarks.fitting import timed_trainer
from lightning_attn.attention import GatedAttention
from lightning_attn.data.bags import BagDataset, Bags
from lightning_attn.data.encoded import offsets_of
from lightning_attn.encoders import MLP
from lightning_attn.networks import BagNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema

RATE = 1e-3
Sizes = Callable[[np.random.Generator, int], np.ndarray]

MIXES: dict[str, Sizes] = {
    "5 to 5,000, log-uniform": lambda rng, count: np.exp(rng.uniform(np.log(5), np.log(5000), count)).astype(int),
    "one of 5,000 and 31 of 5": lambda rng, count: np.where(np.arange(count) % 32 == 0, 5000, 5),
    "200 on average, exponential": lambda rng, count: 1 + rng.exponential(200, count).astype(int),
    "100 to 300, uniform": lambda rng, count: rng.integers(100, 300, count),
    "200 each": lambda rng, count: np.full(count, 200),
}


@dataclass
class Setting:
    """What both are given.

    Attributes:
        bags: Features, labels and sizes.
        order: Rows of each batch, shape ``(batches, batch size)``.
        width: Units of the encoder and of the attention.
        device: Where both train.
    """

    bags: Bags
    order: np.ndarray
    width: int
    device: torch.device

    @property
    def features(self) -> int:
        """Numbers per instance."""
        return int(self.bags.features.shape[1])


class TorchmilBags(Dataset[dict[str, torch.Tensor]]):
    """The bags as torchmil's data sets give them: one dictionary per bag."""

    def __init__(self, setting: Setting) -> None:
        self.features = torch.from_numpy(setting.bags.features)
        self.offsets = setting.bags.offsets.tolist()
        self.labels = torch.from_numpy(setting.bags.labels[:, 0])

    def __len__(self) -> int:
        """Number of bags."""
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        """Features ``X``, shape ``(n, D)``, and label ``Y``."""
        return {"X": self.features[self.offsets[row] : self.offsets[row + 1]], "Y": self.labels[row]}


def make(mix: Sizes, bags: int, batch: int, features: int, width: int, device: torch.device) -> Setting:
    """Bags of normal features in which a shift of the first one, in some instances, makes the label."""
    rng = np.random.default_rng(0)
    sizes = mix(rng, bags)
    labels = (np.arange(bags) % 2).astype(np.float32)
    order = np.arange(bags) if sizes[0] == 5000 else rng.permutation(bags)
    values = rng.standard_normal((sizes.sum(), features), dtype=np.float32)
    marked = (rng.random(len(values)) < 0.2) & (np.repeat(labels, sizes) > 0)
    values[marked, 0] += 2
    return Setting(Bags(values, offsets_of(sizes), labels[:, None]), order.reshape(-1, batch), width, device)


def abmil(setting: Setting) -> ABMIL:
    """Torchmil's network; the same weights every time."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(setting.features, setting.width), nn.ReLU())
    network = ABMIL((setting.features,), att_dim=setting.width, gated=True, feat_ext=encoder)
    return network.to(setting.device)


def ours(setting: Setting) -> BagNetwork:
    """Our network with the weights of :func:`abmil`."""
    theirs = abmil(setting)
    network = BagNetwork(MLP((setting.width,)), GatedAttention(setting.width))
    network.build(DataSchema(num_classes=1, multi_label=True, feature_shape=(setting.features,)))
    pairs = [
        (network.encoder.layers[0], theirs.feat_ext[0]),
        (network.attention.project, theirs.pool.fc1.module),
        (network.attention.gate, theirs.pool.fc_gated.module),
        (network.attention.direction, theirs.pool.fc2),
        (network.head.layers, theirs.classifier.module),
    ]
    with torch.no_grad():
        network.attention.direction.bias.zero_()  # theirs has none; under a softmax it changes nothing
        for mine, their in pairs:
            for name, parameter in their.named_parameters():
                mine.get_parameter(name).copy_(parameter)
    return network.to(setting.device)


@dataclass
class Epochs:
    """What a training left behind.

    Attributes:
        losses: Mean training loss of each epoch.
        ends: Wall-clock time at the end of each.
    """

    losses: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def end(self, loss: float) -> None:
        """An epoch is over."""
        self.losses.append(loss)
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Mean time of an epoch; the first, which holds what is done once, does not count."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


class TorchmilLogger:
    """Takes what torchmil's Trainer logs."""

    def __init__(self) -> None:
        self.epochs = Epochs()

    def log(self, figures: dict[str, float]) -> None:
        """Called after each epoch of training, and of evaluation."""
        if "train/loss" in figures:
            self.epochs.end(figures["train/loss"])


class LightningEpochs(Callback):
    """Notes the end of each epoch of Lightning's Trainer."""

    def __init__(self) -> None:
        self.epochs = Epochs()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning has just computed the loss."""
        self.epochs.end(float(trainer.callback_metrics["train/loss"]))


def train_torchmil(setting: Setting, epochs: int = 3) -> Epochs:
    """Train with torchmil as its documentation does, without progress bar and next to no evaluation."""
    network, logger = abmil(setting), TorchmilLogger()
    bags = TorchmilBags(setting)
    trainer = TorchmilTrainer(
        network,
        torch.optim.Adam(network.parameters(), lr=RATE),
        metrics_dict={"accuracy": torchmetrics.Accuracy(task="binary").to(setting.device)},
        device=str(setting.device),
        logger=logger,
        disable_pbar=True,
        verbose=False,
    )
    loader = DataLoader(bags, batch_sampler=setting.order.tolist(), collate_fn=collate_fn)
    # It evaluates after every epoch, on train if it is given nothing else: one small bag is next to nothing.
    smallest = [int(setting.bags.sizes.argmin())]
    trainer.train(epochs, loader, DataLoader(bags, batch_sampler=[smallest], collate_fn=collate_fn))
    return logger.epochs


def train_ours(setting: Setting, epochs: int = 3) -> Epochs:
    """Train with Lightning."""
    recorder = LightningEpochs()
    module = AttentionClassifier(ours(setting), optimizer=partial(torch.optim.Adam, lr=RATE))
    trainer = timed_trainer(setting.device.type, max_epochs=epochs, callbacks=[recorder])
    trainer.fit(module, our_loader(setting))
    return recorder.epochs


def our_loader(setting: Setting) -> DataLoader[Batch]:
    """Packed batches in the same order."""
    return DataLoader(BagDataset(setting.bags), sampler=setting.order.tolist(), batch_size=None)


def loop_torchmil(setting: Setting) -> None:
    """One epoch of torchmil's network and collate in a loop without a framework."""
    network = abmil(setting)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for batch in DataLoader(TorchmilBags(setting), batch_sampler=setting.order.tolist(), collate_fn=collate_fn):
        moved = batch.to(setting.device)
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(network(moved["X"], moved["mask"]), moved["Y"]).backward()
        optimiser.step()


def loop_ours(setting: Setting) -> None:
    """One epoch of our network on packed batches in the same loop."""
    network = ours(setting)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for batch in our_loader(setting):
        moved = batch.to(setting.device)
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(network(moved).logits, moved.target).backward()
        optimiser.step()


def check_parity(setting: Setting) -> None:
    """Three epochs with the same mean losses, or an error."""
    expected, found = train_torchmil(setting).losses, train_ours(setting).losses
    worst = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    assert worst < 1e-4, f"parity: losses {expected} of torchmil, {found} of ours"
    assert expected[-1] < expected[0], "both learn"
    print(f"parity: losses {', '.join(f'{loss:.5f}' for loss in expected)}; largest difference {worst:.1e}")


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name: str, setting: Setting, repeats: int) -> None:
    """Print bags per second and their ratio, medians of interleaved repetitions."""
    arms: dict[str, Callable[[], float]] = {
        "torchmil": lambda: train_torchmil(setting).seconds,
        "ours": lambda: train_ours(setting).seconds,
        "torchmil loop": lambda: seconds(lambda: loop_torchmil(setting), setting.device),
        "our loop": lambda: seconds(lambda: loop_ours(setting), setting.device),
    }
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(repeats):
        for arm, run in arms.items():
            times[arm].append(run())
    rate = {arm: setting.order.size / statistics.median(spent) for arm, spent in times.items()}
    trained = statistics.median(a / b for a, b in zip(times["torchmil"], times["ours"], strict=True))
    looped = statistics.median(a / b for a, b in zip(times["torchmil loop"], times["our loop"], strict=True))
    print(
        f"  {name:36} {rate['torchmil']:9.0f} {rate['ours']:9.0f} {trained:6.2f}   "
        f"{rate['torchmil loop']:9.0f} {rate['our loop']:9.0f} {looped:6.2f}"
    )


def forward_and_backward(network: BagNetwork, batch: Batch) -> None:
    """What a training step does with the network."""
    network(batch).logits.sum().backward()


def cost_of_an_instance(features: int, width: int, device: torch.device, repeats: int) -> None:
    """Print seconds per instance, forward and backward, for bags of one size and for both extremes together."""
    print("microseconds per instance, forward and backward:")
    total = 20_000
    cases = {f"bags of {size:,}": [size] * (total // size) for size in (5, 50, 500, 5000)}
    cases["3 of 5,000 and 1,000 of 5"] = [5000] * 3 + [5] * 1000
    for name, sizes in cases.items():
        setting = make(lambda rng, count, sizes=sizes: np.array(sizes), len(sizes), len(sizes), features, width, device)
        batch = BagDataset(setting.bags)[range(len(sizes))].to(device)
        step = partial(forward_and_backward, ours(setting), batch)
        spent = [seconds(step, device) for _ in range(repeats + 1)][1:]
        print(f"  {name:36} {1e6 * statistics.median(spent) / total:6.3f}")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bags", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    device = torch.device(given.device)
    name = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; {given.bags} bags in batches of {given.batch}, {given.features} features, width {given.width}")
    sizes = {key: make(mix, given.bags, given.batch, given.features, given.width, device) for key, mix in MIXES.items()}
    alone = next(iter(MIXES))
    sizes[f"{alone}, one per batch"] = make(MIXES[alone], given.bags, 1, given.features, given.width, device)
    check_parity(next(iter(sizes.values())))
    print(f"bags per second, median of {given.repeats} repetitions; at least 3 times torchmil's where sizes are mixed")
    print(f"  {'':36} {'torchmil':>9} {'ours':>9} {'ratio':>6}   {'its loop':>9} {'our loop':>9} {'ratio':>6}")
    for key, setting in sizes.items():
        compare(key, setting, given.repeats)
    cost_of_an_instance(given.features, given.width, device, given.repeats)


if __name__ == "__main__":
    main()
