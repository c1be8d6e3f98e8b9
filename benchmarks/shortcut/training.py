"""Networks of a cell: version A as the arm has it, version B with masked fine-tuning on top, and the judge C."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from pytorch_lightning import seed_everything

from benchmarks.cells import Cell
from benchmarks.fitting import fit_best
from benchmarks.reordered import Reordered
from benchmarks.shortcut.arms import mitigation_of, network_of
from lightning_attn.mitigations import NoMitigation
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.tasks import AttentionClassifier

DECAY = 1e-5
JUDGE_SEED = 1000


def trained(cell: Cell, data: Reordered, masked: bool = False) -> AttentionNetwork:
    """The network of the epoch with the least validation loss as is, of the last phase; in evaluation mode.

    Args:
        cell: Arm, setting, seed and sizes.
        data: Its texts.
        masked: Whether masked fine-tuning comes on top of the arm (version B).
    """
    seed_everything(cell["seed"], verbose=False)
    module = AttentionClassifier(
        network_of(cell),
        mitigation_of(cell["arm"], {"warmup": cell.get("warmup", 200), **cell["setting"]}, cell["seed"], masked),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=cell["rate"], weight_decay=DECAY, fused=True),
    )
    with tempfile.TemporaryDirectory() as folder:
        fit_best(module, data, cell["epochs"], folder)
    network = module.network
    network.set_mitigation(NoMitigation())  # it has done its work, and has state
    return network.requires_grad_(True).eval()


def judge_of(cell: Cell, data: Reordered, work: str) -> AttentionNetwork:
    """The one network that judges the rankings of every arm on these data (version C), trained if it is not there yet.

    Plain training and masked fine-tuning, with contextual values: it is to classify well, its own attention is nothing.
    """
    sizes = {name: cell[name] for name in ("data", "embedding", "hidden", "epochs", "batch", "rate")}
    judged = {**sizes, "arm": "none", "setting": {}, "mask": "contextual", "seed": JUDGE_SEED}
    file = Path(work) / ("judge-" + "-".join(str(value) for value in sizes.values()).replace(" ", "") + ".pt")
    if file.is_file():
        network = network_of(judged).build(data.schema)
        network.load_state_dict(torch.load(file, weights_only=True))
        return network.eval()
    network = trained(judged, Reordered(data.data, cell["batch"], JUDGE_SEED), masked=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    torch.save(network.state_dict(), unfinished)
    unfinished.replace(file)
    return network
