"""The LightningModule that trains a network to explain another one: `BlackBoxExplainer`."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.trainer.states import RunningStage
from torch import Tensor
from torchmetrics import Accuracy, MetricCollection
from torchmetrics.utilities.prints import rank_zero_info

from lightning_attn.data.base import AttentionDataModule
from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import Mitigation
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.black_box import open_black_box
from lightning_attn.ops.evaluation import unmixed
from lightning_attn.optim import ParameterRule
from lightning_attn.tasks.classification import AttentionClassifier
from lightning_attn.types import Batch, DataSchema

#: Probabilities of a split that are kept: 200 MB.
_MOST_ANSWERS = 50_000_000
_AT_ONCE = 64  # examples of one question


class BlackBoxExplainer(AttentionClassifier):
    """Trains a network to say what a trained black box says: its attention, mostly a selection, is to show why.

    The target is the black box's class probabilities for the unchanged text, in evaluation mode, without gradient; the
    loss is the cross-entropy to them, under every mitigation. Labels are not learned from. ``val/fidelity`` and
    ``test/fidelity`` are the agreement with the black box's class, which decides the best checkpoint; ``loss`` is that
    to the black box; ``accuracy``, ``f1`` and ``auroc`` are to the labels, as ever. A :class:`ShortcutProbe` asks the
    same black box for ``shortcut/post_hoc_accuracy``: whether it says the same of the selected part alone.

    Whether the selection explains the black box or only passes its answer on to the head is what those two figures tell
    when they are read together; ``SelectionCallback`` logs them side by side. The black box is asked about a split
    once, before its first batch, and it is no part of this network nor of its checkpoints.

    Source: Chen et al., ICML 2018, https://arxiv.org/abs/1802.07814, L2X; soft target and choice of the epoch as in
    their code.

    Args:
        network: See :class:`AttentionClassifier`; ``TopKSelection`` as its attention gives L2X.
        black_box: What is to be explained: a checkpoint of ``lightning fit``, trained on the same data; the name or
            folder of a Hugging Face classifier, whose tokenizer splits the data. From Python also a network at hand, a
            classifier of ``transformers``, and any module or function from :class:`Batch` to logits. See
            :func:`open_black_box`.
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
        black_box: Any,
        mitigation: Mitigation | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        parameter_rules: list[ParameterRule] | None = None,
    ) -> None:
        super().__init__(network, mitigation, optimizer, lr_scheduler, parameter_rules)
        # Past torch, which would make a network at hand a part of this module, of its checkpoints and its optimiser.
        self.__dict__["black_box"] = black_box
        self._explained: AttentionNetwork | None = None
        self._answers: dict[str, Tensor] = {}

    @property
    def explained(self) -> AttentionNetwork:
        """The black box, in evaluation mode, without gradients; there after :meth:`setup`.

        Raises:
            InputError: It was not read yet.
        """
        if self._explained is None:
            raise InputError("BlackBoxExplainer reads its black box when a Trainer sets it up: call setup(stage).")
        return self._explained

    def setup(self, stage: str) -> None:
        """As for every classifier; and read the black box.

        Raises:
            InputError: There is no such black box; it is for other data; its weights hold NaN; or examples may have
                several labels. See also :meth:`AttentionClassifier.setup`.
        """
        super().setup(stage)
        self._answers = {}  # the data may be others
        if self._explained is None:
            if self.network.schema.multi_label:
                raise InputError(
                    "BlackBoxExplainer explains a choice of one class, but an example of these data may have several "
                    "labels; use data with one label each."
                )
            self.__dict__["_explained"] = open_black_box(self.black_box, self.network.schema, self.data_state)

    def soft_target(self, batch: Batch) -> Tensor:
        """Class probabilities of the black box, shape ``(B, C)``: from memory, where the split was asked as a whole."""
        split = "train" if self.training else "test" if self.trainer.state.stage == RunningStage.TESTING else "val"
        datamodule = getattr(self.trainer, "datamodule", None)
        if not isinstance(datamodule, AttentionDataModule) or split not in datamodule.splits:
            return self.ask(batch)
        dataset = datamodule.dataset(split)
        if len(dataset) * self.network.schema.num_classes > _MOST_ANSWERS:
            return self.ask(batch)
        if split not in self._answers:
            rank_zero_info(f"Asking the black box about the {len(dataset):,} examples of {split}.")
            order = torch.as_tensor(dataset.lengths).argsort(stable=True)  # little padding
            parts = [self.ask(dataset[part.tolist()].to(batch.device)) for part in torch.split(order, _AT_ONCE)]
            answers = torch.cat(parts)
            self._answers[split] = torch.empty_like(answers).index_copy_(0, order.to(answers.device), answers)
        return self._answers[split].to(batch.device)[batch.index]

    def ask(self, batch: Batch) -> Tensor:
        """What the black box says of a batch now: class probabilities, shape ``(B, C)``.

        Raises:
            InputError: They are NaN.
        """
        network = self.explained.to(batch.device)
        with torch.no_grad(), unmixed(batch.device):  # half precision would be too coarse for a target
            logits = network(batch).logits
        chances = network.schema.probabilities(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        if not chances.isfinite().all():
            raise InputError("The black box answers NaN or infinity, so there is nothing to explain; train it again.")
        return chances

    def make_metrics(self, schema: DataSchema) -> None:
        """Agreement with the black box as well."""
        super().make_metrics(schema)
        for metrics in (self.val_metrics, self.test_metrics):
            metrics.add_metrics({"fidelity": Accuracy("multiclass", num_classes=schema.num_classes, average="micro")})

    def _update_metrics(self, metrics: MetricCollection, logits: Tensor, target: Tensor, soft_target: Tensor) -> None:
        super()._update_metrics(metrics, logits, target, soft_target)
        metrics["fidelity"].update(logits, soft_target.argmax(dim=-1))
