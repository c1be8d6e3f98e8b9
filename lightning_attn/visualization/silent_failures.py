"""Trainings whose predictions are good and whose attention is wrong: what counts as one, and how many there are."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml  # type: ignore[import-untyped]  # its stubs are a distribution of their own
from scipy import stats

from lightning_attn.errors import InputError
from lightning_attn.runs.folder import CHECKPOINTS, CONFIG
from lightning_attn.visualization.curves import Run, read_run

Kind = Literal["inverted", "collapsed", "partial"]
KINDS: tuple[Kind, ...] = ("inverted", "collapsed", "partial")
SINGLE = "single"
#: What ``lightning ensemble`` writes into its folder.
_ENSEMBLE = "ensemble.json"


@dataclass(frozen=True)
class Thresholds:
    """What counts as a silent failure.

    Attributes:
        good: The metric of the predictions is at least this.
        bad: The AUROC of the attention for the key instances is below this.
        inverted: Below this it is inverted: others rank above the keys.
        effective: With fewer effective instances than this, the attention has collapsed onto one.
    """

    good: float = 0.95
    bad: float = 0.70
    inverted: float = 0.50
    effective: float = 1.5


@dataclass(frozen=True)
class Training:
    """One training, or one ensemble, as it did on held-out data.

    Attributes:
        name: For tables and messages.
        prediction: Metric of the predictions, such as the AUROC over bags.
        attention: AUROC of the attention for the key instances, the mean over bags.
        key_mass: Attention on the keys; None if it was not measured.
        key_rate: What uniform attention puts there; None if it was not measured.
        effective: Effective number of instances; None if it was not measured.
        group: What it is compared as: ``single``, or ``ensemble of K``.
    """

    name: str
    prediction: float
    attention: float
    key_mass: float | None = None
    key_rate: float | None = None
    effective: float | None = None
    group: str = SINGLE

    def silent(self, limits: Thresholds) -> bool:
        """Whether the predictions are good and the attention is wrong."""
        return self.prediction >= limits.good and self.attention < limits.bad

    def kind(self, limits: Thresholds) -> Kind | None:
        """How the attention is wrong; None if it is not.

        ``inverted``: worse than a random ranking. ``collapsed``: nearly all weight is on one instance, or less of it on
        the keys than uniform attention would put there. ``partial``: anything else, such as one of two kinds of keys
        that is missed.
        """
        if self.attention >= limits.bad:
            return None
        if self.attention < limits.inverted:
            return "inverted"
        narrow = self.effective is not None and self.effective < limits.effective
        missed = self.key_mass is not None and self.key_rate is not None and self.key_mass < self.key_rate
        return "collapsed" if narrow or missed else "partial"


@dataclass(frozen=True)
class FailureRate:
    """How often trainings fail silently.

    Attributes:
        trainings: All of them.
        good: Those whose predictions are good.
        silent: Those of the good ones whose attention is wrong.
        low: Lower end of the 95 % interval of :attr:`share`; NaN if none is good.
        high: Its upper end.
        kinds: Number of the silent ones of each kind.
    """

    trainings: int
    good: int
    silent: int
    low: float
    high: float
    kinds: dict[Kind, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """P(attention wrong | predictions good); NaN if none is good."""
        return self.silent / self.good if self.good else math.nan


def failure_rate(trainings: Sequence[Training], limits: Thresholds) -> FailureRate:
    """Count silent failures.

    The interval is Wilson's for a proportion (JASA 1927), which holds for independent trainings: seeds of one data set,
    say. It also holds where none or all of them fail, which a bootstrap cannot tell from certainty. Ensembles that
    share members are not independent; their interval is too narrow.

    Args:
        trainings: Of one group.
        limits: What counts as a failure.
    """
    good = [training for training in trainings if training.prediction >= limits.good]
    silent = [training for training in good if training.silent(limits)]
    low, high = math.nan, math.nan
    if good:
        low, high = stats.binomtest(len(silent), len(good)).proportion_ci(method="wilson")
    kinds: dict[Kind, int] = {kind: sum(one.kind(limits) == kind for one in silent) for kind in KINDS}
    return FailureRate(len(trainings), len(good), len(silent), float(low), float(high), kinds)


def groups(trainings: Sequence[Training]) -> dict[str, list[Training]]:
    """Trainings by group: single ones first, then ensembles of growing size."""
    names = sorted({training.group for training in trainings}, key=_size)
    return {name: [training for training in trainings if training.group == name] for name in names}


def read_trainings(folder: str | Path, prediction: str | None = None, attention: str | None = None) -> list[Training]:
    """What a run folder, or the folder of an ensemble, says of its trainings.

    Of a run of ``fit`` it is the epoch of its best checkpoint that counts, of ``test`` and ``validate`` what they
    measured; a folder that ``lightning ensemble`` made gives its members. A run that measured an ensemble is of the
    group ``ensemble of K``.

    Args:
        folder: Where ``metrics.csv`` or ``ensemble.json`` is.
        prediction: Name of the metric of the predictions, as it was logged; None takes ``test/auroc``, or
            ``val/auroc`` where there is no test.
        attention: Name of the AUROC of the attention, as it was logged; None takes ``instances/auroc`` of the same
            split, or ``plausibility/auroc`` for texts.

    Raises:
        InputError: The folder is none of these, or a metric was not logged.
    """
    folder = Path(folder)
    record = folder / _ENSEMBLE
    if record.is_file():
        members = json.loads(record.read_text()).get("members")
        if not members:
            raise InputError(f"The ensemble in {folder} has not been trained to its end: give the command again.")
        return [
            _training(f"{folder.name}/{number:02d}", folder, member["metrics"], SINGLE, prediction, attention)
            for number, member in enumerate(members)
        ]
    run = read_run(folder)
    return [_training(run.name, folder, _figures(run, folder), _group(folder), prediction, attention)]


def _training(
    name: str, folder: Path, figures: dict[str, Any], group: str, prediction: str | None, attention: str | None
) -> Training:
    split = "test" if "test/auroc" in figures else "val"
    asked = prediction or f"{split}/auroc"
    split = asked.split("/")[0]
    candidates = (f"{split}/instances/auroc", f"{split}/plausibility/auroc")
    wanted = attention or next((metric for metric in candidates if figures.get(metric) is not None), candidates[0])
    for metric in (asked, wanted):
        if figures.get(metric) is None:
            logged = ", ".join(sorted(key for key in figures if key.endswith("auroc"))) or "no AUROC"
            raise InputError(f"{folder} has no {metric}; logged were {logged}. Is there an InstanceCallback?")
    extra = {
        field: figures.get(f"{split}/instances/{metric}")
        for field, metric in (("key_mass", "key_mass"), ("key_rate", "key_rate"), ("effective", "effective_instances"))
    }
    return Training(name, figures[asked], figures[wanted], **extra, group=group)


def _figures(run: Run, folder: Path) -> dict[str, float]:
    """The figures of the epoch that the best checkpoint is of; without checkpoint, the last of each."""
    best = folder / CHECKPOINTS / "best.ckpt"
    if best.is_file():
        epoch = int(torch.load(best, map_location="cpu", weights_only=True)["epoch"])
        return {metric: points[epoch] for metric, points in run.curves.items() if epoch in points}
    return {metric: points[max(points)] for metric, points in run.curves.items()}


def _group(folder: Path) -> str:
    """Single or ensemble, by the run's configuration."""
    path = folder / CONFIG
    if not path.is_file():
        return SINGLE
    network = (yaml.safe_load(path.read_text()) or {}).get("model", {}).get("init_args", {}).get("network")
    if not isinstance(network, dict) or not str(network.get("class_path", "")).endswith("AttentionEnsemble"):
        return SINGLE
    return ensemble_of(len(network["init_args"]["members"]))


def ensemble_of(size: int) -> str:
    """Name of the group of ensembles of ``size`` members."""
    return f"ensemble of {size}"


def _size(group: str) -> tuple[int, str]:
    number = group.rsplit(" ", 1)[-1]
    return (int(number), group) if number.isdigit() else (0, group)
