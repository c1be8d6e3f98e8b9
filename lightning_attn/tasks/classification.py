"""The LightningModule that trains an attention classifier under a mitigation."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from typing_extensions import override

from lightning_attn.errors import InputError, adopt_renamed
from lightning_attn.metrics.classification import classification_metrics
from lightning_attn.ops.evaluation import unmixed
from lightning_attn.ops.losses import classification_loss
from lightning_attn.tasks.base import AttentionModule
from lightning_attn.types import AttentionOutput, Batch, DataSchema


class AttentionClassifier(AttentionModule):
    """Trains a network under a mitigation; multi-class and multi-label.

    Logs ``train/loss``, and ``loss``, ``accuracy``, ``f1`` (macro) and ``auroc`` (macro) under ``val/`` and ``test/``,
    and the mitigation's own figures under ``mitigation/``. Every logged figure is the same for any number of
    processes. ``mitigation/phase`` is 0 while the head sees random attention and 1 once it sees the learned one.
    Validation and test always use the learned attention and unweighted examples.

    Example:
        >>> from lightning_attn.networks import PooledNetwork
        >>> from lightning_attn.mitigations import RandomPretraining
        >>> module = AttentionClassifier(PooledNetwork(), mitigation=RandomPretraining(epochs=2))

    Arguments: see :class:`AttentionModule`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_renamed(cls, goal="soft_target")

    def make_metrics(self, schema: DataSchema) -> None:
        """Loss, accuracy, F1 and AUROC.

        Raises:
            InputError: The data have questions, not classes.
        """
        if schema.spans:
            raise InputError("AttentionClassifier trains classes, but the data have questions: use QuestionAnswerer.")
        self.train_loss = MeanMetric()
        self.val_metrics = classification_metrics(schema)
        self.test_metrics = classification_metrics(schema)

    @override
    def logged_names(self) -> set[str]:
        return super().logged_names() | {f"val/{name}" for name in self.val_metrics}

    def forward(self, batch: Batch) -> AttentionOutput:
        """The network's output for a batch."""
        with nullcontext() if self.training else unmixed(self.device):
            output: AttentionOutput = self.network(batch)
        return output

    def soft_target(self, batch: Batch) -> Tensor:
        """What the network is to predict: the labels, shape ``(B,)`` or ``(B, C)``. See :meth:`loss`."""
        return batch.target

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mitigated loss of a batch."""
        mitigation = self.mitigation
        batch = mitigation.perturb(batch.replace(target=self.soft_target(batch)))
        output = self(batch)
        seen = self.network.attendable(batch)
        weights = mitigation.weigh(output.learned, seen)
        loss = self.loss(output.logits, batch.target, weights)
        self.train_loss.update(loss.detach(), len(batch))
        auxiliary = mitigation.auxiliary_loss(output, seen, self.network)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        phase = float(mitigation.phase == "learn")
        self.log("mitigation/phase", phase, on_step=False, on_epoch=True, batch_size=len(batch), sync_dist=True)
        for name, metric in mitigation.metrics().items():
            if metric.update_called:  # what rests in this phase has nothing to log
                self.log(f"mitigation/{name}", metric, on_step=False, on_epoch=True)
        return loss if auxiliary is None else loss + auxiliary

    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean cross-entropy, a scalar.

        Args:
            logits: Shape ``(B, C)``.
            target: See :meth:`soft_target`.
            weights: What :meth:`Mitigation.weigh` gives; None weighs all alike.
        """
        return classification_loss(logits, target, self.network.schema, weights)

    def on_validation_epoch_start(self) -> None:
        """Let every process take part in the metrics, also one that has no example."""
        self._join_without_examples(self.val_metrics)

    def on_test_epoch_start(self) -> None:
        """As for validation."""
        self._join_without_examples(self.test_metrics)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics; a process that has run out of examples gets empty batches."""
        if len(batch):
            self._update_metrics(self.val_metrics, self(batch).logits, batch.target, self.soft_target(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics; a process that has run out of examples gets empty batches."""
        if len(batch):
            self._update_metrics(self.test_metrics, self(batch).logits, batch.target, self.soft_target(batch))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/*``."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log ``test/*``."""
        self._log_metrics("test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Row, probabilities ``(B, C)`` and attention ``(B, L)`` of each example; None for an empty batch."""
        if not len(batch):
            return None
        output = self(batch)
        return {
            "index": batch.index,
            "probabilities": self.network.schema.probabilities(output.logits),
            "attention": output.attention,
            "inputs": batch.inputs,
            "valid": batch.valid,
        }

    def _update_metrics(self, metrics: MetricCollection, logits: Tensor, target: Tensor, soft_target: Tensor) -> None:
        probabilities = self.network.schema.probabilities(logits)
        metrics["loss"].update(self.loss(logits, soft_target), len(soft_target))
        for name in ("accuracy", "f1", "auroc"):
            metrics[name].update(probabilities, target.long())

    def _join_without_examples(self, metrics: MetricCollection) -> None:
        """Bring list states of the right type on every process: one that gets no example has none of its own."""
        classes = self.network.schema.num_classes
        target = torch.zeros((0, classes) if self.network.schema.multi_label else 0, device=self.device).long()
        metrics["auroc"].update(torch.zeros(0, classes, device=self.device), target)

    def _log_metrics(self, stage: str, metrics: MetricCollection) -> None:
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            self.log(f"{stage}/{name}", metric, prog_bar=name in ("loss", "accuracy"))
