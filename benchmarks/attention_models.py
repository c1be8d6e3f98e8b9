"""The networks of ``benchmarks.attention_is_not_explanation``: their data, their training, their files."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from benchmarks.cells import Cell
from benchmarks.fitting import trainer_of
from lightning_attn.attention import AdditiveAttention, AdditiveQueryAttention, DotAttention, DotQueryAttention
from lightning_attn.attention.scorers import UniformAttention
from lightning_attn.callbacks import FaithfulnessCallback
from lightning_attn.callbacks.checkpoint import BestAndLastCheckpoint
from lightning_attn.data import BabiDataModule, CorpusDataModule, NLIDataModule, SSTDataModule, WordProcessor
from lightning_attn.encoders import CNN, BiLSTM, Encoder, TokenMLP
from lightning_attn.mitigations import Compose, InstanceWeighting, Mitigation, NoMitigation, RandomPretraining
from lightning_attn.networks import AttentionNetwork, PairedNetwork, PooledNetwork
from lightning_attn.networks.classifiers import LinearClassifier
from lightning_attn.networks.frozen_attention import FrozenAttention
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import DataSchema

SEEDS = 3
PRETRAINING_EPOCHS = 2
VECTOR_SCALE = 2.0


@dataclass(frozen=True)
class Places:
    """Folders and files that the cells read and write.

    Attributes:
        data: Folder with ``sst``, ``counterfactual_nli``, ``snli`` and ``babi_en_1k``.
        vectors: File of word vectors for SST, from ``benchmarks.word_vectors``.
        checkpoints: Folder for the trained networks.
    """

    data: Path
    vectors: Path
    checkpoints: Path

    def checkpoint(self, cell: Cell) -> Path:
        """Where the network of a cell is kept."""
        names = ("task", "encoder", "attention", "arm", "seed", "epochs")
        return self.checkpoints / ("-".join(str(cell[name]) for name in names) + ".pt")


class SigmoidClassifier(LinearClassifier):
    """One output, as the binary classifiers of Jain and Wallace: logits ``(0, w . c + b)``, so softmax is a sigmoid.

    With a row for each of two classes Adam would move their difference twice as fast.
    """

    def make_layers(self, value_size: int, num_classes: int) -> None:
        self.layers = nn.Linear(value_size, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        logit = super().forward(pooled)
        return torch.cat([torch.zeros_like(logit), logit], dim=-1)


class PublishedTraining(AttentionClassifier):
    """Adam with amsgrad, and weight decay on everything but the attention layer (Jain and Wallace 2019).

    Their loss is summed over the batch of 32, ours is its mean: Adam does not care, but a weight decay of 1e-5 is
    relative to it.
    """

    def configure_optimizers(self) -> torch.optim.Optimizer:
        attention = list(self.network.attention.parameters())
        others = [parameter for parameter in self.parameters() if all(parameter is not one for one in attention)]
        groups = [{"params": others, "weight_decay": 1e-5 / 32}, {"params": attention}]
        return torch.optim.Adam([group for group in groups if group["params"]], lr=1e-3, amsgrad=True, fused=True)


class PublishedStart(Callback):
    """Word vectors as long as the published ones; words without one, and the marks of start and end, at 0 as published.

    "hello" and "world" have 0.17 (root mean square of their numbers) in ours and about 0.31 in ``wiki.simple.vec``, by
    the sixteen numbers that the documentation of GluonNLP shows: hence the factor.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        vectors = trainer.datamodule.word_vectors()  # type: ignore[attr-defined]
        with torch.no_grad():
            weight = pl_module.network.encoder.embedding.weight  # type: ignore[union-attr]
            weight.copy_(VECTOR_SCALE * vectors.nan_to_num())  # type: ignore[operator]


class BestAfterFirst(BestAndLastCheckpoint):
    """Keeps the best epoch, but never the first (Jain and Wallace 2019)."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch > 0:
            super().on_validation_end(trainer, pl_module)


class Epochs(Callback):
    """Keeps, epoch by epoch, the validation AUROC and the agreement of attention with gradients."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            for name, logged in (("auroc", "val/auroc"), ("tau", "val/faithfulness/kendall_gradient")):
                if logged in trainer.callback_metrics:
                    self.figures[f"{name}/{trainer.current_epoch}"] = float(trainer.callback_metrics[logged])


def make_data(cell: Cell, places: Places) -> CorpusDataModule:
    """The data module of a cell's task."""
    if cell["task"] == "sst":
        return SSTDataModule(
            places.data / "sst",
            min_length=6,
            punctuation=False,
            word_vectors=places.vectors,
            batch_size=32,
            evaluation_batch_size=128,
            seed=cell["seed"],
        )
    if cell["task"] == "nli":
        return NLIDataModule(
            places.data / "counterfactual_nli" / "all_combined" / "train.tsv.xz",
            places.data / "snli" / "dev.csv.xz",
            places.data / "snli" / "test.csv.xz",
            processor=WordProcessor(min_frequency=2),
            batch_size=64,
            evaluation_batch_size=256,
            seed=cell["seed"],
        )
    # one seed: it also decides which stories are carved for validation, and so the order of the vocabulary
    return BabiDataModule(places.data / "babi_en_1k", task=1, batch_size=20, evaluation_batch_size=128)


def make_network(cell: Cell, places: Places) -> AttentionNetwork:
    """The network of a cell, without layers; contextual values, as published."""
    if cell["task"] == "sst":
        return PooledNetwork(_encoder(cell["encoder"], 300, 128, 0.0), _attention(cell, places), SigmoidClassifier())
    embedding, hidden = {"nli": (128, 128), "babi": (200, 64)}[cell["task"]]
    text, query = (_encoder(cell["encoder"], embedding, hidden, dropout=0.2) for _ in range(2))
    attention = {"additive": AdditiveQueryAttention, "dot": DotQueryAttention}[cell["attention"]]()
    return PairedNetwork(text, query, attention)


def _encoder(name: str, embedding: int, hidden: int, dropout: float) -> Encoder:
    if name == "bilstm":
        return BiLSTM(embedding, hidden, dropout=dropout)
    if name == "cnn":
        return CNN(embedding, dropout=dropout)
    return TokenMLP(embedding, 128, dropout=dropout)


def _attention(cell: Cell, places: Places) -> Any:
    if cell["attention"] == "frozen":  # that of the BiLSTM of the same seed
        return FrozenAttention.from_network(load(cell | {"encoder": "bilstm", "attention": "additive"}, places))
    return {"additive": AdditiveAttention, "dot": DotAttention, "uniform": UniformAttention}[cell["attention"]]()


def make_mitigation(arm: str, seed: int) -> Mitigation:
    """The mitigation of an arm."""
    arms: dict[str, list[Mitigation]] = {
        "none": [NoMitigation()],
        "random_pretraining": [RandomPretraining(PRETRAINING_EPOCHS, seed=seed)],
        "instance_weighting": [InstanceWeighting(seed=seed)],
        "both": [RandomPretraining(PRETRAINING_EPOCHS, seed=seed), InstanceWeighting(seed=seed)],
    }
    return Compose(arms[arm])


def train(cell: Cell, places: Places) -> dict[str, float]:
    """Train the network of a cell, keep its best epoch in a file; returns the validation figures of that epoch."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seed_everything(cell["seed"], verbose=False)
    network, data = make_network(cell, places), make_data(cell, places)
    mitigation = make_mitigation(cell["arm"], cell["seed"])
    callbacks: list[Callback] = []
    if cell["task"] == "sst":
        module: AttentionClassifier = PublishedTraining(network, mitigation)
        callbacks = [PublishedStart()]
    else:
        rate = {"nli": 1e-3, "babi": 5e-3}[cell["task"]]
        module = AttentionClassifier(
            network,
            mitigation,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-5, fused=True),
        )
    checkpoint = BestAfterFirst(monitor="val/auroc" if cell["task"] == "sst" else "val/accuracy", mode="max")
    watched = None if cell["task"] == "sst" else 500  # the page shows the epochs of SST alone
    agreement = FaithfulnessCallback(max_examples=watched, metrics=["faithfulness/kendall_gradient"], splits=["val"])
    epochs = Epochs()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(cell["epochs"], folder, [checkpoint, agreement, epochs, *callbacks])
        trainer.fit(module, data)
        figures = trainer.validate(module, data, ckpt_path=checkpoint.best_model_path, verbose=False)[0]
        best = torch.load(checkpoint.best_model_path, weights_only=True)["epoch"]
        figures |= epochs.figures | {"epoch": best}
        if cell["attention"] in ("uniform", "frozen"):  # nothing else is measured of these
            figures |= trainer.test(module, data, verbose=False)[0]
            return {name: float(value) for name, value in figures.items()}
    places.checkpoints.mkdir(parents=True, exist_ok=True)
    found = {name: float(value) for name, value in figures.items()}
    state = TrainedNetwork(network).state() | {"figures": found}
    state["weights"] = {name: value for name, value in state["weights"].items() if "mitigation" not in name}
    unfinished = places.checkpoint(cell).with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.replace(places.checkpoint(cell))
    return found


def load(cell: Cell, places: Places) -> AttentionNetwork:
    """The trained network of a cell, in evaluation mode."""
    state = read(cell, places)
    network = make_network(cell, places).build(DataSchema(**state["schema"]))
    network.load_state_dict(state["weights"])
    return network.eval()


def read(cell: Cell, places: Places) -> dict[str, Any]:
    """What :func:`train` kept of a cell: ``schema``, ``weights`` and ``figures``."""
    kept: dict[str, Any] = torch.load(places.checkpoint(cell), weights_only=True)
    return kept
