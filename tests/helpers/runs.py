"""Tiny data, modules and Trainers that the tests of whole runs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader

from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.data.bags import BagDataModule, GaussianClusters, NormalSize, Presence
from lightning_attn.encoders import MLP, BiLSTM
from lightning_attn.mitigations import Mitigation
from lightning_attn.networks import BagNetwork, InstanceNetwork, PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch


class RecordingLogger(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        return "recording"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


def tiny_data(train: int = 24, val: int = 21, test: int = 9, **arguments: Any) -> SyntheticReviewsDataModule:
    data = SyntheticReviewsDataModule(train_size=train, val_size=val, test_size=test, batch_size=4, **arguments)
    data.prepare_data()
    data.setup("fit")
    return data


def tiny_module(
    data: SyntheticReviewsDataModule, mitigation: Mitigation | None = None, dropout: float = 0.0, sharpness: float = 1.0
) -> AttentionClassifier:
    torch.manual_seed(0)
    network = PooledNetwork(BiLSTM(embedding_size=8, hidden_size=6, dropout=dropout)).build(data.schema)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(sharpness)
    return AttentionClassifier(network, mitigation)


def tiny_checkpoint(folder: Path, module: AttentionClassifier, data: SyntheticReviewsDataModule) -> str:
    """What ``lightning fit`` would have written of a :func:`tiny_module`, with the description of its network."""
    encoder = {"class_path": "lightning_attn.encoders.BiLSTM", "init_args": {"embedding_size": 8, "hidden_size": 6}}
    content = {
        "state_dict": {f"network.{name}": value for name, value in module.network.state_dict().items()},
        "schema": module.network.schema.as_dict(),
        "data": data.export(),
        "hyper_parameters": {
            "network": {"class_path": "lightning_attn.networks.PooledNetwork", "init_args": {"encoder": encoder}}
        },
    }
    torch.save(content, folder / "tiny.ckpt")
    return str(folder / "tiny.ckpt")


def trainer(folder: Path, **arguments: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(default_root_dir=folder, **{**defaults, **arguments})


def loader(*batches: Batch) -> DataLoader[Batch]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def tiny_bags(**arguments: Any) -> BagDataModule:
    sizes = {"train_size": 24, "val_size": 21, "test_size": 21, "batch_size": 4, **arguments}
    data = BagDataModule(Presence(), GaussianClusters(), NormalSize(6, 3), **sizes)
    data.prepare_data()
    data.setup("fit")
    return data


def bag_module(data: BagDataModule, network: InstanceNetwork | None = None, **arguments: Any) -> AttentionClassifier:
    torch.manual_seed(0)
    built = (network or BagNetwork(MLP((8,)))).build(data.schema)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(3.0)
    return AttentionClassifier(built, **arguments)
