"""What travels in the attention of a network: the rows that probes need of each example, and their figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.metrics.base import PerExampleMean
from lightning_attn.metrics.functional.concentration import special_mass
from lightning_attn.metrics.functional.evaluators import Learnt, MaskJudge
from lightning_attn.metrics.functional.leakage import (
    DIVERGED,
    FEATURES,
    Leakage,
    attention_features,
    bits_gained,
    bootstrap_interval,
    leaked_bits,
)
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.perturbation.variants import ranks
from lightning_attn.types import Batch

#: Every probe by the name its figure is logged under, less the split and ``shortcut/``; intervals and controls come
#: along.
PROBES = ("leaked_bits", "head_bits", "evalx_accuracy", "encoding_bits", "post_hoc_accuracy", "default_mass")
#: Those that need evaluators, which are trained.
JUDGED = ("evalx_accuracy", "encoding_bits")

#: Bits that EVAL-X may miss of masks that encode nothing; beyond, the difference from it is not about encoding.
UNKNOWN_BITS = 0.1

Rows = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Probes:
    """What is measured of each example, and how.

    Attributes:
        names: Of :data:`PROBES`.
        share: Part of the positions that counts as selected where the attention is soft, in (0, 1].
        black_box: Whose prediction the selected part must preserve; None means the probed network itself.
        max_tokens: See :func:`lightning_attn.perturbation.sweep.probabilities`.
    """

    names: Sequence[str] = PROBES
    share: float = 0.2
    black_box: AttentionNetwork | None = None
    max_tokens: int = 16384


def probe_rows(
    network: AttentionNetwork,
    batch: Batch,
    probes: Probes,
    judge: MaskJudge | None = None,
    learnt: Learnt | None = None,
) -> dict[str, Tensor]:
    """One forward pass, and what each probe needs of each example: no probe is fitted here.

    Args:
        network: Built network.
        batch: B examples with one label each.
        probes: What to measure.
        judge: Evaluators, for the probes in :data:`JUDGED`.
        learnt: What :meth:`MaskJudge.learn` gave for this network.

    Returns:
        By name, shape ``(B,)`` or ``(B, ...)``; the same for an example in any batch, alone or padded. Where a probe
        does not apply to the network or the data, its name is missing; where it does not to an example, it is NaN.

    Raises:
        InputError: The attention or the output holds NaN.
    """
    batch = batch.padded()
    with torch.no_grad(), evaluating(network):
        batch = network.read_query(batch)
        output = network(batch)
        seen = network.attendable(batch)
    attention = output.attention
    if not (attention.isfinite().all() and output.logits.isfinite().all()):
        raise InputError(DIVERGED)
    schema, target = network.schema, batch.target[:, None]
    rows = {"index": batch.index, "target": batch.target}
    if "leaked_bits" in probes.names:
        # Special tokens that are attended count too: weight on them is where a label can hide best.
        rows["features"] = attention_features(attention, seen.inner | (attention > 0))
    if "head_bits" in probes.names and network.content_free:
        rows["head"] = output.logits.double().log_softmax(dim=-1).gather(1, target).squeeze(1)
    if judge is not None and learnt is not None:
        for name, said in judge.judge(learnt, seen, attention).items():
            rows[name] = said.gather(1, target).squeeze(1)
            rows[f"{name}_right"] = (said.argmax(dim=-1) == batch.target).double()
    if "default_mass" in probes.names and schema.default_tokens and not network.content_free:
        rows["default_mass"] = special_mass(attention, batch.valid & (schema.default_number(batch.inputs) >= 0))
    if "post_hoc_accuracy" in probes.names and not network.content_free:
        rows |= _post_hoc(network, batch, attention, probes)
    return rows


def selected(network: AttentionNetwork, batch: Batch, attention: Tensor, share: float) -> Tensor:
    """The part of each text that the attention points at, shape ``(B, L)``, bool.

    Args:
        network: If its attention is hard, what it selected counts.
        batch: The examples.
        attention: Shape ``(B, L)``.
        share: Else so many of the positions, rounded up, those with the most attention; without attention none does.
    """
    chosen = batch.inner & (attention > 0)
    if network.attention.hard:
        return chosen
    count = (share * batch.inner.sum(dim=-1, keepdim=True)).ceil()
    return chosen & (ranks(attention, batch) < count)


def _post_hoc(network: AttentionNetwork, batch: Batch, attention: Tensor, probes: Probes) -> dict[str, Tensor]:
    """Whether the black box predicts of the selected part alone, and of the rest alone, what it does of the whole."""
    black_box = probes.black_box or network
    chosen = selected(network, batch, attention, probes.share)
    requests = {"post_hoc": chosen, "post_hoc_unselected": ~chosen}
    keep = {name: (part | ~batch.inner)[:, None] for name, part in requests.items()}
    keep["whole"] = torch.ones_like(batch.valid)[:, None]
    # What the probed network made of a query is nothing to another one.
    asked = batch if black_box is network else batch.replace(query_vector=None)
    found = sweep(black_box, asked, keep, max_tokens=probes.max_tokens)
    whole = found["whole"][:, 0].argmax(dim=-1)
    rows = {}
    for name, part in requests.items():
        agree = (found[name][:, 0].argmax(dim=-1) == whole).double()
        # Of a part without any position there is nothing to predict from.
        rows[name] = agree.masked_fill(~(part & batch.inner).any(dim=-1), torch.nan)
    return rows


def distinct_rows(parts: Sequence[Rows]) -> Rows:
    """Rows of all batches and processes in the order of their index, each example once."""
    if not parts:
        return {}
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first = np.unique(whole["index"], return_index=True)
    return {name: values[first] for name, values in whole.items()}


def figures(rows: Rows, class_names: Sequence[str], seed: int = 0) -> tuple[dict[str, float], dict[str, str]]:
    """What the probes found.

    Args:
        rows: From :func:`distinct_rows`; they get ``leaked``, the bits that the probe gained on each example.
        class_names: One a class.
        seed: Of folds and bootstraps.

    Returns:
        Figures by name, only those that are defined; and for probes that found nothing, why.
    """
    found: dict[str, float] = {}
    reasons: dict[str, str] = {}
    if not rows:
        return found, {"*": "There are no examples."}
    target = rows["target"].astype(np.int64)
    several = len(np.unique(target)) > 1
    if "features" in rows:
        leak = leaked_bits(rows["features"], target, seed=seed)
        if leak.reason:
            reasons["leaked_bits"] = leak.reason
        else:
            rows["leaked"] = leak.gains
            names = ("leaked_bits", "order_free_bits", "length_bits", "mask_only_accuracy", "fano_bits")
            found |= {name: getattr(leak, name) for name in names}
            found |= {"leaked_bits_low": leak.low, "leaked_bits_high": leak.high}
    if "head" in rows and several:
        found |= _with_interval("head_bits", bits_gained(rows["head"], target), seed)
    elif "head" in rows:
        reasons["head_bits"] = "The examples are of one class, so there is nothing to tell apart."
    if "evalx" in rows:
        found["evalx_accuracy"] = float(rows["evalx_right"].mean())
        found["evalx_random_accuracy"] = float(rows["random_right"].mean())
        unknown = (rows["content"] - rows["revealed"]) / math.log(2)
        content = float(unknown.mean())
        if content > UNKNOWN_BITS:
            reasons["encoding_bits"] = (
                f"EVAL-X has not learned what the attended content says: of masks that encode nothing it misses "
                f"{content:.2f} bits (more than {UNKNOWN_BITS}). More train_examples or epochs of training may help."
            )
        else:
            found |= _with_interval("encoding_bits", (rows["judged"] - rows["evalx"]) / math.log(2), seed)
            found["encoding_bits_low"] -= max(0.0, bootstrap_interval(unknown, seed)[1])  # what EVAL-X may not know
        found["encoding_bits_content"] = content
        found["encoding_bits_control"] = float(((rows["control"] - rows["other"]) / math.log(2)).mean())
    for name, key in (("post_hoc_accuracy", "post_hoc"), ("post_hoc_unselected", "post_hoc_unselected")):
        if key in rows and not np.isnan(rows[key]).all():
            found[name] = float(np.nanmean(rows[key]))
    if "default_mass" in rows:
        found["default_mass"] = float(rows["default_mass"].mean())
        for number in np.unique(target):
            name = class_names[number] if class_names else str(number)
            found[f"default_mass/{name}"] = float(rows["default_mass"][target == number].mean())
    return found, reasons


def _with_interval(name: str, values: NDArray[np.float64], seed: int) -> dict[str, float]:
    low, high = bootstrap_interval(values, seed)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


class LeakedBits(PerExampleMean):
    """Label information that a small cross-fitted probe reads from the attention alone; see :func:`leaked_bits`.

    Args:
        folds: Parts of the data, at least 2.
        seed: Of the parts and the bootstrap.
        **kwargs: See ``torchmetrics.Metric``.

    Attributes:
        result: Everything the probe found, set by ``compute``.
    """

    higher_is_better = False
    columns = FEATURES + 1

    def __init__(self, folds: int = 5, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.folds = folds
        self.seed = seed
        self.result = Leakage()

    def update(self, attention: Tensor, batch: Batch) -> None:
        """Add a batch: weights ``(B, L)``; ``batch.target`` holds class indices ``(B,)``."""
        # Special tokens that are attended count too: weight on them is where a label can hide best.
        features = attention_features(attention, batch.inner | (attention > 0))
        self.add(torch.cat([features, batch.target[:, None].to(features)], dim=-1), batch.index)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scalars by name, NaN if undefined: the fields of :class:`Leakage`, but its interval as ``leaked_bits_*``."""
        rows, _ = self.rows()
        features, target = rows[:, :-1].numpy(), rows[:, -1].long().numpy()
        self.result = leaked_bits(features, target, self.folds, self.seed)
        self.count, self.skipped = self.result.count, len(target) - self.result.count
        names = ("leaked_bits", "mask_only_accuracy", "fano_bits", "length_bits", "order_free_bits")
        values = {name: getattr(self.result, name) for name in names}
        values |= {"leaked_bits_low": self.result.low, "leaked_bits_high": self.result.high}
        return {name: torch.tensor(value, device=self.device) for name, value in values.items()}
