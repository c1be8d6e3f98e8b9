"""One cell of ``benchmarks.sets``: bags, networks of many seeds, and what their attention finds, alone and together."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torchmetrics.functional.classification import multiclass_auroc

from benchmarks.cells import Cell, rounded
from benchmarks.together import Together, part, started, train_together, whole
from lightning_attn.attention import GatedAttention
from lightning_attn.callbacks import BestAndLastCheckpoint
from lightning_attn.data.bags import (
    BagDataModule,
    BagTask,
    Confounder,
    Conjunction,
    CorrelatedBackground,
    Count,
    Digits,
    ExclusiveOr,
    ExpressionCounts,
    FourBags,
    GaussianClusters,
    Majority,
    Modality,
    NormalSize,
    Poison,
    Presence,
    PresenceWithVeto,
)
from lightning_attn.encoders import MLP
from lightning_attn.metrics.functional import (
    instance_measures,
    log_weights,
    pairwise_jsd,
    pairwise_rank_correlation,
    risk_coverage,
)
from lightning_attn.metrics.functional.instances import ranked_measures
from lightning_attn.mitigations import Compose, InstanceWeighting, Mitigation, NoMitigation, RandomPretraining
from lightning_attn.networks import BagNetwork, LinearClassifier, MLPClassifier
from lightning_attn.networks.combinations import COMBINATIONS, get_combination
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch

TASKS: dict[str, Callable[[], BagTask]] = {
    "presence": Presence,
    "count": Count,
    "majority": Majority,
    "veto": PresenceWithVeto,
    "xor": ExclusiveOr,
    "four bags": FourBags,
    "conjunction": Conjunction,
}
MODALITIES: dict[str, Callable[[], Modality]] = {
    "digits": Digits,
    "gaussian": GaussianClusters,
    "expression": ExpressionCounts,
}
EPOCHS, BATCH, RATE, DECAY = 50, 32, 3e-3, 1e-4
PRETRAINING_EPOCHS = 20
SIZES = (1, 2, 5, 10)
DRAWS = 30  # ensembles drawn of each size


def data_of(cell: Cell) -> BagDataModule:
    """The bags of a cell; what ``setting`` does not name has its default."""
    setting = cell.get("setting", {})
    confounders: list[Confounder] = []
    if "background" in setting:
        confounders.append(CorrelatedBackground(setting["background"]))
    if "poison" in setting:
        confounders.append(Poison(setting["poison"]))
    modality = MODALITIES[cell["modality"]]()
    if "distance" in setting:
        modality = GaussianClusters(distance=setting["distance"])
    size = NormalSize(setting["size"], setting["size"] / 5) if "size" in setting else None
    data = BagDataModule(
        TASKS[cell["task"]](),
        modality,
        size,
        witness_rate=setting.get("witness_rate", 0.2),
        train_size=setting.get("train_size", 400),
        val_size=200,
        test_size=400,
        label_noise=setting.get("label_noise", 0.0),
        confounders=confounders,
        batch_size=BATCH,
        seed=cell["data_seed"],
    )
    data.setup()
    return data


def network_of(cell: Cell) -> BagNetwork:
    """An MLP of one layer, gated attention, and the head of the cell."""
    head = LinearClassifier() if cell["head"] == "linear" else MLPClassifier(32)
    return BagNetwork(MLP((32,)), GatedAttention(16), head)


def compute(cell: Cell) -> dict[str, Any]:
    """Train the networks of a cell and measure them on its test bags."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    data = data_of(cell)
    networks = started(lambda: network_of(cell), data, range(cell["trainings"]))
    untrained = Together.from_networks(networks)
    arm = cell.get("arm", "none")
    trained = train_together(networks, data, EPOCHS, RATE, DECAY) if arm == "none" else _one_by_one(networks, data, arm)
    test, val = whole(data, "test"), whole(data, "val")
    logits, logs = _outputs(trained, test)
    letters = _letters(data, test)
    result: dict[str, Any] = _figures(logits, logs, test, letters)
    result["val"] = [_auroc(one, val.target) for one in _outputs(trained, val)[0]]
    result["untrained"] = float(np.mean(_figures(*_outputs(untrained, test), test, letters)["attention"]))
    keys = instance_measures(logs[0], _evidence(test), test.inner)["key_rate"]
    result["key_rate"], result["bags_with_keys"] = float(keys.nanmean()), int((~keys.isnan()).sum())
    result["ensembles"] = _ensembles(logits, logs, test, letters)
    result["disagreement"] = _disagreement(logs, test)
    return dict(rounded(result))


def _one_by_one(networks: Sequence[BagNetwork], data: BagDataModule, arm: str) -> Together:
    """As a user would: one Trainer per network, best checkpoint of the last phase."""
    mitigations: dict[str, Callable[[int], list[Mitigation]]] = {
        "random_pretraining": lambda seed: [RandomPretraining(PRETRAINING_EPOCHS, seed=seed)],
        "instance_weighting": lambda seed: [InstanceWeighting(seed=seed)],
        "both": lambda seed: [RandomPretraining(PRETRAINING_EPOCHS, seed=seed), InstanceWeighting(seed=seed)],
    }
    for seed, network in enumerate(networks):
        module = AttentionClassifier(
            network,
            Compose(mitigations[arm](seed)),
            optimizer=lambda own: torch.optim.AdamW(own, lr=RATE, weight_decay=DECAY),
        )
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = BestAndLastCheckpoint()
            trainer = Trainer(
                max_epochs=EPOCHS,
                accelerator="cpu",
                devices=1,
                logger=False,
                callbacks=[checkpoint],
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                default_root_dir=folder,
            )
            trainer.fit(module, data)
            module.load_state_dict(torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"])
        network.set_mitigation(NoMitigation())  # it has done its work, and has state
    return Together.from_networks([network.requires_grad_(True) for network in networks])


def _outputs(trained: Together, split: Batch) -> tuple[Tensor, Tensor]:
    """Logits ``(K, B, C)`` and log-weights ``(K, B, L)``, float64."""
    parts = [trained.outputs(part(split, rows)) for rows in torch.arange(len(split)).split(100)]
    width = split.valid.shape[1]
    scores = [torch.nn.functional.pad(scores, (0, width - scores.shape[-1])) for _, scores in parts]
    together = torch.cat(scores, dim=1)
    logs = torch.stack([log_weights(one, split.inner) for one in together])
    return torch.cat([logits for logits, _ in parts], dim=1).double(), logs


def _evidence(batch: Batch) -> Tensor:
    assert batch.evidence is not None
    return batch.evidence


def _letters(data: BagDataModule, test: Batch) -> list[Tensor]:
    """For each letter of the task, the evidence with the keys of the other letter unknown, ``(B, L)``."""
    kinds = torch.full(test.valid.shape, -1)
    kinds[test.valid] = torch.as_tensor(data.dataset("test").kinds)
    evidence = _evidence(test)
    letters = range(data.task.letters)
    return [evidence.masked_fill((evidence > 0) & (kinds != letter), torch.nan) for letter in letters]


def _auroc(logits: Tensor, target: Tensor) -> float:
    return float(multiclass_auroc(logits.softmax(-1), target, logits.shape[-1], thresholds=None))


def _figures(logits: Tensor, logs: Tensor, test: Batch, letters: Sequence[Tensor]) -> dict[str, list[float]]:
    """By name, one figure per network: from logits ``(K, B, C)`` and log-weights ``(K, B, L)``."""
    count, flat = len(logs), logs.flatten(0, 1)
    inner = test.inner.repeat(count, 1)
    measured = instance_measures(flat, _evidence(test).repeat(count, 1), inner)
    apart = [ranked_measures(flat, own.repeat(count, 1), inner)["auroc"] for own in letters]
    means = {
        "attention": _means(measured["auroc"], count),
        "key_mass": _means(measured["key_mass"], count),
        "effective": _means(measured["effective_instances"], count),
        "worse_letter": torch.stack([_means(one, count) for one in apart]).amin(dim=0),
    }
    found = {"bag": [_auroc(one, test.target) for one in logits]}
    return found | {name: values.tolist() for name, values in means.items()}


def _means(values: Tensor, count: int) -> Tensor:
    """Mean of each network over the bags where a measure is defined, shape ``(K,)``, from ``(K * B,)``."""
    return values.view(count, -1).nanmean(dim=1)


def _combined(name: str, logits: Tensor, logs: Tensor, test: Batch) -> tuple[Tensor, Tensor]:
    """Logits ``(1, B, C)`` and log-weights ``(1, B, L)`` of an ensemble of the networks given."""
    combination = get_combination(name)
    scores = combination.attention(logs.masked_fill(~test.inner, -1e30).movedim(0, -1))
    together = combination.logits(logits.movedim(0, -1), multi_label=False)
    return together[None], log_weights(scores, test.inner)[None]


def _ensembles(logits: Tensor, logs: Tensor, test: Batch, letters: Sequence[Tensor]) -> dict[str, Any]:
    """By combination and size, the figures of ensembles drawn from the networks."""
    generator = np.random.default_rng(0)
    drawn = {size: [generator.permutation(len(logits))[:size] for _ in range(DRAWS)] for size in SIZES[1:]}
    found: dict[str, Any] = {}
    for name in COMBINATIONS:
        for size in SIZES[1:] if name == "mean" else SIZES[2:]:
            if size > len(logits):
                continue
            made = [_combined(name, logits[rows], logs[rows], test) for rows in drawn[size]]
            several = [torch.cat(parts) for parts in zip(*made, strict=True)]
            found.setdefault(name, {})[str(size)] = _figures(*several, test, letters)
    return found


def _disagreement(logs: Tensor, test: Batch) -> dict[str, float]:
    """Of the first ten networks: how much they differ, and whether that foretells the error of their attention."""
    members = logs[:10]
    weights = members.exp().masked_fill(~test.inner, 0.0)
    jsd = pairwise_jsd(weights)
    _, combined = _combined("mean", torch.zeros(len(members), len(test), 2), members, test)
    quality = ranked_measures(combined[0], _evidence(test), test.inner)["auroc"]
    known = ~quality.isnan()
    curve = risk_coverage(jsd[known], 1 - quality[known])
    correlation = pairwise_rank_correlation(members, test.inner)[known].nanmean()
    return {
        "jsd": float(jsd[known].mean()),
        "rank_correlation": float(correlation),
        "area": curve.area,
        "random": curve.random,
        "oracle": curve.oracle,
        "gain": curve.gain,
    }
