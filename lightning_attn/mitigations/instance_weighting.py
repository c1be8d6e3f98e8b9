"""Mask-neutral learning by instance weighting."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MaxMetric, MeanMetric, Metric

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import Mitigation
from lightning_attn.mitigations.mask_classifier import BagMaskClassifier, MaskClassifier, SetMaskClassifier
from lightning_attn.mitigations.outcomes import Outcomes, sum_over_processes
from lightning_attn.mitigations.reliability import CalibrationError, EffectiveSampleSize, RawWeightMean
from lightning_attn.ops.softmax import attendable
from lightning_attn.types import AttentionOutput, Batch, DataSchema, MitigatedNetwork


class InstanceWeighting(Mitigation):
    """Weights each example by ``P(y) / P(y | attention)``, so that label and attention become independent.

    Under the weights every moment of the mask and every label keeps its frequency, but the mask no longer tells the
    label, and the head gains nothing from reading it. ``P(y | attention)`` comes from two small networks that are
    trained with the model on detached attention: each example is weighted by the one that was not trained on it,
    because a network that fits its own examples makes every weight 1. For multi-label targets every label is weighted
    by itself. Where the target is a black box's probabilities, y is a class drawn from them: an example counts as one
    of each class, to the degree that it is probable, each with the weight of its class. The head then gains nothing by
    reading off the mask what the black box would say.

    Source: Bai et al., KDD 2021, https://arxiv.org/abs/2006.05656, mask-neutral learning. Reconstructed:
    estimator, cross-fitting, clipping and normalisation are ours.

    Args:
        classifier: Estimator of P(y | attention), copied for the second fold: ``SetMaskClassifier``,
            ``SummaryMaskClassifier`` (logistic), ``ConvolutionalMaskClassifier`` or ``RecurrentMaskClassifier``. None
            means ``SetMaskClassifier()``, or ``BagMaskClassifier()`` for bags whose order says nothing.
        warmup_steps: Training steps in which all weights are 1 while the estimator learns.
        floor: Smallest P(y | attention) that is believed, in (0, 1); bounds the weights by P(y) / floor before they are
            divided by their class mean.
        momentum: Memory of the running class means that weights are divided by, in [0, 1).
        seed: Seed of the assignment of examples to folds. Folds are a hash of ``Batch.index``, not its parity, which
            could go with the label in a file that alternates the classes.

    Raises:
        InputError: ``floor`` or ``momentum`` is out of its range.
    """

    weight_sum: Tensor
    weight_count: Tensor

    def __init__(
        self,
        classifier: MaskClassifier | None = None,
        warmup_steps: int = 200,
        floor: float = 0.05,
        momentum: float = 0.99,
        seed: int = 0,
    ) -> None:
        if not 0 < floor < 1:
            raise InputError(f"floor must be in (0, 1), got {floor}.")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {momentum}.")
        super().__init__()
        self.classifiers = nn.ModuleList([classifier or SetMaskClassifier()])
        self._own_classifier = classifier is not None
        self.built = False
        self.warmup_steps = warmup_steps
        self.floor = floor
        self.momentum = momentum
        self.seed = seed
        self.steps = 0
        self.logged: dict[str, Metric] = nn.ModuleDict(  # type: ignore[assignment]
            {
                "effective_sample_size": EffectiveSampleSize(),
                "weight_max": MaxMetric(),
                "mask_classifier_nll": MeanMetric(),
                "mask_classifier_calibration": CalibrationError(),
                "raw_weight_mean": RawWeightMean(),
            }
        )

    def build(self, schema: DataSchema) -> None:
        """Make the second estimator and the running means for this number of classes.

        Raises:
            InputError: It was built before: estimators and means belong to one network.
        """
        if self.built:
            raise InputError("This InstanceWeighting belongs to a network already; make a new one for another network.")
        self.built = True
        if schema.feature_shape is not None and schema.grid is None and not self._own_classifier:
            self.classifiers[0] = BagMaskClassifier()
        self.outcomes = Outcomes(schema)
        second = copy.deepcopy(self.classifiers[0])
        for module in second.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        self.classifiers.append(second)
        for classifier in (self.classifiers[0], second):
            cast(MaskClassifier, classifier).make_layers(self.outcomes.frequency.numel())
        self.register_buffer("weight_sum", torch.ones_like(self.outcomes.frequency))
        self.register_buffer("weight_count", torch.ones_like(self.outcomes.frequency))

    def weigh(self, attention: Tensor, batch: Batch) -> Tensor:
        """``P(y) / P(y | attention)`` over its running class mean; 1 during the warm-up; ``(B,)`` or ``(B, C)``."""
        self.steps += 1
        with torch.no_grad():
            log_probability = self._log_probability(attention.detach(), batch, held_out=True)
            outcome = self.outcomes.probabilities(batch).to(log_probability.dtype)
            count = self.outcomes.count(outcome)
            raw = self.outcomes.prior() / log_probability.exp().clamp_min(self.floor)
            total = sum_over_processes((outcome * raw).sum(dim=0))
            self.weight_sum.mul_(self.momentum).add_(total)
            self.weight_count.mul_(self.momentum).add_(count)
            mean = self.weight_sum / self.weight_count
            cell_weight = torch.ones_like(raw) if self.steps <= self.warmup_steps else raw / mean
            weight = (outcome * cell_weight).sum(dim=2)  # of the one outcome, or expected
        self.logged["effective_sample_size"].update(weight)
        self.logged["weight_max"].update(weight)
        self.logged["mask_classifier_nll"].update(-(outcome * log_probability).sum(dim=2))
        self.logged["mask_classifier_calibration"].update(log_probability.exp(), outcome)
        if self.steps > self.warmup_steps:  # before, the estimator knows nothing
            self.logged["raw_weight_mean"].update((outcome * raw).sum(dim=2))
        if self.outcomes.is_soft(batch):
            return cell_weight.squeeze(1)
        return weight if self.outcomes.multi_label else weight.squeeze(1)

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: MitigatedNetwork) -> Tensor:
        """Cross-entropy of each estimator on its own fold; attention is detached, so the scorer does not feel it."""
        log_probability = self._log_probability(output.learned.detach(), batch, held_out=False)
        return -(self.outcomes.probabilities(batch) * log_probability).sum(dim=2).mean()

    def metrics(self) -> dict[str, Metric]:
        """Effective sample size (a share), largest weight, raw mean weight; held-out NLL (nats), calibration error."""
        return dict(self.logged.items())

    def get_extra_state(self) -> dict[str, int]:
        """Number of steps, for the warm-up."""
        return {"steps": self.steps}

    def set_extra_state(self, state: Any) -> None:
        """Restore :meth:`get_extra_state`."""
        self.steps = state["steps"]

    def fold(self, index: Tensor) -> Tensor:
        """0 or 1 for each example: a seeded hash of its row in the data set, shape of ``index``."""
        mixed = (index + self.seed) * 2654435761 % 2**32
        return (mixed ^ (mixed >> 15)) * 2246822519 % 2**32 >> 31

    def _log_probability(self, attention: Tensor, batch: Batch, held_out: bool) -> Tensor:
        """Ln P(y | attention), shape ``(B, columns, cells)``, by the other fold's estimator or the own one's."""
        fold = self.fold(batch.index)
        # Special tokens that are attended count too: weight on them is where a label can hide best.
        allowed = attendable(batch) | (attention > 0)
        result = attention.new_empty(len(batch), self.outcomes.frequency.numel())
        for number, classifier in enumerate(self.classifiers):
            rows = (fold != number if held_out else fold == number).nonzero().squeeze(1)
            logits = classifier(attention[rows], allowed[rows])
            result = result.index_copy(0, rows, logits.to(result.dtype))
        return result.view(len(batch), self.outcomes.columns, self.outcomes.cells).log_softmax(dim=-1)
