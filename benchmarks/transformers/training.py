"""Models of a cell: fine-tuned once and kept, or trained under a mitigation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from pytorch_lightning import seed_everything
from safetensors.torch import load_file, save_file

from benchmarks.cells import Cell
from benchmarks.fitting import fit_best
from benchmarks.shortcut.arms import mitigation_of
from benchmarks.transformers.data import data_of
from benchmarks.transformers.plan import TRAINED
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.mitigations import Mitigation, NoMitigation
from lightning_attn.networks import TransformerNetwork, TransformerQANetwork
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.optim import NoDecayOfNormsAndBiases, WarmupLinear
from lightning_attn.tasks import AttentionClassifier, QuestionAnswerer
from lightning_attn.tasks.base import AttentionModule

DECAY, WARMUP, CLIP = 0.01, 0.1, 1.0
RANDOM_EPOCHS = 1  # of random pretraining


def file_of(cell: Cell, names: Sequence[str], work: str, ending: str) -> Path:
    """Where something is kept that depends on these entries of a cell."""
    mark = hashlib.sha256(json.dumps({name: cell[name] for name in names}, sort_keys=True).encode()).hexdigest()[:12]
    return Path(work) / f"{cell['task']}-{mark}{ending}"


def module_of(cell: Cell, model: str, mitigation: Mitigation | None = None) -> AttentionModule:
    """An untrained module: a classifier, or for questions an answerer."""
    options = {
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=cell["rate"], weight_decay=DECAY, fused=True),
        "lr_scheduler": lambda optimizer: WarmupLinear(optimizer, WARMUP),
        "parameter_rules": [NoDecayOfNormsAndBiases()],
    }
    if cell["task"] == "QA":
        return QuestionAnswerer(TransformerQANetwork(model), **options)
    return AttentionClassifier(TransformerNetwork(model), mitigation, **options)


def tuned(cell: Cell, root: str, model: str, work: str) -> tuple[TransformerModel, AttentionDataModule]:
    """The one fine-tuned model of a task, trained if it is not there yet, and its data."""
    relevant = {name: cell[name] for name in TRAINED} | {"seed": 0}
    return _tuned(json.dumps(relevant, sort_keys=True), root, model, work)


@lru_cache(maxsize=1)
def _tuned(described: str, root: str, model: str, work: str) -> tuple[TransformerModel, AttentionDataModule]:
    cell = json.loads(described)
    data = data_of(cell, root, model, work)
    seed_everything(cell["seed"], verbose=False)
    module = module_of(cell, model)
    network = module.network
    assert isinstance(network, TransformerModel)
    file = file_of(cell, TRAINED, work, ".safetensors")
    if file.is_file():
        network.build(data.schema).load_state_dict(load_file(file))
        return network.eval(), data
    folder = file.with_suffix("")
    fit_best(module, data, cell["epochs"], folder, CLIP)
    unfinished = file.with_suffix(f".{os.getpid()}")
    save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, unfinished)
    unfinished.replace(file)
    shutil.rmtree(folder)
    return network.eval(), data


def mitigated(cell: Cell, root: str, model: str, work: str) -> tuple[TransformerModel, AttentionDataModule]:
    """A classifier whose last layer was trained under the mitigation of an arm, and its data."""
    data = data_of(cell, root, model, work)
    seed_everything(cell["seed"], verbose=False)
    steps = -(-len(data.dataset("train")) // cell["batch"])
    mitigation = mitigation_of(cell["arm"], {"warmup": steps, "epochs": RANDOM_EPOCHS}, cell["seed"])
    module = module_of(cell, model, mitigation)
    with tempfile.TemporaryDirectory() as folder:
        fit_best(module, data, cell["epochs"], folder, CLIP)
    network = module.network
    assert isinstance(network, TransformerModel)
    network.set_mitigation(NoMitigation())  # it has done its work, and has state
    return network.requires_grad_(True).eval(), data
