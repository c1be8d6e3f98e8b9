"""The LightningModule that trains a network to explain another one: `BlackBoxExplainer`."""

from __future__ import annotations

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import Accuracy, MetricCollection

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import Mitigation
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import check_black_box
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.ops.evaluation import unmixed
from lightning_attn.optim import ParameterRule
from lightning_attn.tasks.classification import AttentionClassifier
from lightning_attn.types import Batch, DataSchema


class BlackBoxExplainer(AttentionClassifier):
    """Trains a network to say what a trained black box says: its attention, mostly a selection, is to show why.

    The target is the black box's class probabilities for the unchanged text, in evaluation mode, without gradient; the
    loss is the cross-entropy to them, under every mitigation. Labels are not learned from. ``val/fidelity`` and
    ``test/fidelity`` are the agreement with the black box's class, which decides the best checkpoint; ``loss`` is that
    to the black box; ``accuracy``, ``f1`` and ``auroc`` are to the labels, as ever. A :class:`ShortcutProbe` asks the
    same black box for ``shortcut/post_hoc_accuracy``: whether it says the same of the selected part alone.

    Whether the selection explains the black box or only passes its answer on to the head is what those two figures tell
    when they are read together. The black box reads each batch once more, a forward pass; it is no part of this network
    nor of its checkpoints.

    Source: Chen et al., ICML 2018, https://arxiv.org/abs/1802.07814, L2X; soft target and choice of the epoch as in
    their code.

    Args:
        network: See :class:`AttentionClassifier`; ``TopKSelection`` as its attention gives L2X.
        black_box: Checkpoint of the network to explain, of any architecture, trained on the same data by
            ``lightning fit``.
        mitigation: See :class:`AttentionClassifier`.
        optimizer: See :class:`AttentionClassifier`.
        lr_scheduler: See :class:`AttentionClassifier`.
        parameter_rules: See :class:`AttentionClassifier`.
    """

    monitor = "val/fidelity"
    mode = "max"

    def __init__(
        self,
        network: AttentionNetwork,
        black_box: str,
        mitigation: Mitigation | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        parameter_rules: list[ParameterRule] | None = None,
    ) -> None:
        super().__init__(network, mitigation, optimizer, lr_scheduler, parameter_rules)
        self.black_box = black_box
        self._trained: TrainedNetwork | None = None

    @property
    def explained(self) -> AttentionNetwork:
        """The black box, in evaluation mode, without gradients; there after :meth:`setup`.

        Raises:
            InputError: It was not read yet.
        """
        if self._trained is None:
            raise InputError("BlackBoxExplainer reads its black box when a Trainer sets it up: call setup(stage).")
        return self._trained.network

    def setup(self, stage: str) -> None:
        """As for every classifier; and read the black box.

        Raises:
            InputError: There is no such checkpoint; it was trained on other data; its weights hold NaN; or examples may
                have several labels. See also :meth:`AttentionClassifier.setup`.
        """
        super().setup(stage)
        if self._trained is None:
            if self.network.schema.multi_label:
                raise InputError(
                    "BlackBoxExplainer explains a choice of one class, but an example of these data may have several "
                    "labels; use data with one label each."
                )
            trained = TrainedNetwork.read(self.black_box)
            check_black_box(self.black_box, trained, self.network.schema, self.data_state)
            self._trained = trained

    def soft_target(self, batch: Batch) -> Tensor:
        """Class probabilities of the black box, shape ``(B, C)``."""
        network = self.explained.to(batch.device)
        with torch.no_grad(), unmixed(batch.device):  # half precision would be too coarse for a target
            logits = network(batch).logits
        return network.schema.probabilities(logits.to(torch.promote_types(logits.dtype, torch.float32)))

    def make_metrics(self, schema: DataSchema) -> None:
        """Agreement with the black box as well."""
        super().make_metrics(schema)
        for metrics in (self.val_metrics, self.test_metrics):
            metrics.add_metrics({"fidelity": Accuracy("multiclass", num_classes=schema.num_classes, average="micro")})

    def _update_metrics(self, metrics: MetricCollection, logits: Tensor, target: Tensor, soft_target: Tensor) -> None:
        super()._update_metrics(metrics, logits, target, soft_target)
        metrics["fidelity"].update(logits, soft_target.argmax(dim=-1))
