"""Faithfulness, plausibility and leaked label information, measured every epoch: `FaithfulnessCallback`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from lightning_attn.callbacks.sampled import SPLITS, SampledCallback, Split, network_of
from lightning_attn.callbacks.shortcut import ShortcutProbe
from lightning_attn.metrics import (
    COSTLY_MEASURES,
    ERASURE,
    IOUF1,
    MEASURES,
    ChunkMean,
    ExampleMean,
    LeakedBits,
    PerExampleMean,
    Preset,
    Settings,
    get_preset,
    measure,
)
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.types import Batch

_IOU = ("plausibility/iou_precision", "plausibility/iou_recall")  # the F1 of their means is what is logged
_SHORTCUT = (
    "shortcut/leaked_bits",
    "shortcut/leaked_bits_low",
    "shortcut/leaked_bits_high",
    "shortcut/mask_only_accuracy",
    "shortcut/fano_bits",
    "shortcut/order_free_bits",
    "shortcut/length_bits",
)

#: Everything that can be measured, by the name it is logged under, less the split.
KNOWN: tuple[str, ...] = (*(name for name in MEASURES if name not in _IOU), "plausibility/iou_f1", *_SHORTCUT)

#: What is measured if nothing is chosen: all but what costs as much as the rest together, adversaries and flips, and
#: the controls that say the same as the other controls.
DEFAULT: tuple[str, ...] = tuple(
    name for name in KNOWN if name not in (*COSTLY_MEASURES, "faithfulness/aopc_random", "faithfulness/log_odds_random")
)


def _metric(name: str, preset: Preset) -> PerExampleMean:
    if name == "plausibility/iou_f1":
        return IOUF1()
    measure = name.removeprefix("faithfulness/").removesuffix("_random")
    return ChunkMean(preset.chunks) if measure in ERASURE and preset.chunks > 1 else ExampleMean()


class ExampleSum(PerExampleMean):
    """Sum of one number an example, over distinct examples."""

    def update(self, value: Tensor, index: Tensor) -> None:
        """Add a batch: values and indices, each ``(B,)``."""
        self.add(value, index)

    def compute(self) -> Tensor:
        """The sum, a scalar."""
        return self.rows()[0].sum().to(self.device, torch.float32)


class FaithfulnessCallback(SampledCallback):
    """Measures on a sample of the validation or test set whether the attention means something, and logs it.

    Logs ``val/faithfulness/*``, ``val/attention/*``, ``val/plausibility/*`` where the data have evidence, and
    ``val/shortcut/*``: how much a probe reads of the label from the attention alone (one label an example only). In
    ``trainer.test`` the names start with ``test``. Means are over the examples where the measure is defined; if it is
    for none, nothing is logged. ``faithfulness/examples`` counts the examples measured, and ``faithfulness/skipped``
    those that are missing from at least one faithfulness mean because the measure is undefined for them (a text of one
    token, constant attention).

    Fit, validate and test give the same figures, on any number of processes. Training is the same to the last bit with
    and without the callback. Of several validation loaders the first is measured.

    Example:
        >>> callback = FaithfulnessCallback(max_examples=64, metrics=["faithfulness/kendall_loo", "plausibility/auprc"])

    Args:
        every_n_epochs: Validation epochs from one measurement to the next; validate and test always measure.
        max_examples: Size of the sample, at least 1, drawn at random once; None measures every example.
        metrics: Names as they are logged, less the split; None means all but the costly ones,
            ``faithfulness/adversarial_jsd``, ``flip_*``, ``soft_*`` and ``naopc``, which costs tens of times as much as
            all that is measured by default.
        splits: Where to measure.
        preset: Name of a way to measure comprehensiveness, sufficiency, AOPC and log-odds, out of
            :data:`lightning_attn.metrics.PRESETS`, or one of your own. Values of different presets cannot be compared.
        perturbation: What happens to removed tokens; None leaves it to the preset.
        max_tokens: Positions, padding included, that perturbed texts may have in one forward pass.
        seed: Of the sample, of permutations and of random rankings.

    Raises:
        InputError: A name is unknown or a number below 1.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_examples: int | None = 128,
        metrics: Sequence[str] | None = None,
        splits: Sequence[Split] = SPLITS,
        preset: str | Preset = "ours",
        perturbation: Perturbation | None = None,
        max_tokens: int = 16384,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, seed, splits)
        self._at_least_one(max_tokens=max_tokens)
        self.names = DEFAULT if metrics is None else tuple(metrics)
        self._known("metric", self.names, KNOWN)
        chosen = get_preset(preset)
        self.settings = Settings(preset=chosen, perturbation=perturbation, max_tokens=max_tokens, seed=seed)
        self._metrics = {name: _metric(name, chosen) for name in self.names if name not in _SHORTCUT}
        self._examples = {"faithfulness/examples": ExampleSum(), "faithfulness/skipped": ExampleSum()}
        self._leakage = LeakedBits(seed=seed) if any(name in _SHORTCUT for name in self.names) else None
        self._told: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hang the metrics into the module, which moves them to its device.

        Raises:
            InputError: The Trainer has two of these callbacks, or the module has no attention network.
        """
        super().setup(trainer, pl_module, stage)
        if any(isinstance(callback, ShortcutProbe) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            self._leakage = None  # it logs the same names
        pl_module.faithfulness = nn.ModuleDict({**self._metrics, **self._examples})
        if self._leakage is not None:
            pl_module.faithfulness["shortcut"] = self._leakage

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Measure and log ``SPLIT/*``."""
        defined = torch.zeros(len(self._metrics), device=pl_module.device)
        self._join(pl_module.device)
        for batch in batches:
            defined += self._update(batch, pl_module)
        # All processes must agree on what to log, because logging a metric gathers its states.
        defined = trainer.strategy.reduce(defined, reduce_op="sum")
        for name, total in self._examples.items():
            pl_module.log(f"{split}/{name}", total, metric_attribute=f"faithfulness.{name}")
        for (name, metric), count in zip(self._metrics.items(), defined.tolist(), strict=True):
            if count > 0:
                pl_module.log(f"{split}/{name}", metric, metric_attribute=f"faithfulness.{name}")
            else:
                metric.reset()
                self._tell(name, "It is undefined for every example that was measured.")
        if self._leakage is not None and not network_of(pl_module).schema.multi_label:
            self._log_leakage(split, self._leakage, pl_module)

    def _join(self, device: torch.device) -> None:
        """Let every process take part in the metrics, also one that has no example of the sample."""
        nothing, row = torch.zeros(0, device=device), torch.zeros(0, dtype=torch.int64, device=device)
        for metric in (*self._metrics.values(), *self._examples.values()):
            metric.update(*[nothing] * (2 if isinstance(metric, IOUF1) else 1), row)
        if self._leakage is not None:
            attention = torch.zeros(0, 1, device=device)
            self._leakage.update(attention, Batch(attention, attention.bool(), attention.bool(), row, row))

    def _update(self, batch: Batch, pl_module: LightningModule) -> Tensor:
        """Measure a batch; returns for how many examples each of the metrics is defined, shape ``(metrics,)``."""
        network = network_of(pl_module)
        names = [name for name in self.names if name in MEASURES]
        if "plausibility/iou_f1" in self.names:
            names += _IOU
        # Lightning validates in inference mode, whose tensors cannot be differentiated.
        with torch.inference_mode(False), torch.no_grad():
            values, output = measure(network, batch, names, self.settings)
            undefined = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
            counts = []
            for name, metric in self._metrics.items():
                columns = [values[part] for part in (_IOU if isinstance(metric, IOUF1) else (name,))]
                metric.update(*columns, batch.index)
                missing = torch.stack(columns).isnan().any(dim=0)
                counts.append((~missing).sum())
                if name.startswith("faithfulness/"):
                    undefined |= missing
            self._examples["faithfulness/examples"].update(torch.ones_like(batch.index), batch.index)
            self._examples["faithfulness/skipped"].update(undefined, batch.index)
            if self._leakage is not None and not network.schema.multi_label:
                self._leakage.update(output.attention, network.attendable(batch))
        return torch.stack(counts) if counts else torch.zeros(0, device=batch.device)

    def _log_leakage(self, split: Split, leakage: LeakedBits, pl_module: LightningModule) -> None:
        """One probe gives several figures, so the object cannot be logged; each process computes the same ones."""
        found = leakage.compute()
        reason = leakage.result.reason
        leakage.reset()
        if reason:
            self._tell("shortcut/*", reason)
            return
        for name in self.names:
            if name in _SHORTCUT:
                value = found[name.removeprefix("shortcut/")].float()
                pl_module.log(f"{split}/{name}", value, sync_dist=True, reduce_fx="max", batch_size=1)

    def _tell(self, name: str, reason: str) -> None:
        """Say once why something is not logged; not of plausibility, because most data have no evidence."""
        if name not in self._told and not name.startswith("plausibility/"):
            rank_zero_info(f"{name} is not logged: {reason}")
        self._told.add(name)
