"""What every classifier logs: loss, accuracy, F1 and AUROC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Accuracy, F1Score, MeanMetric, Metric, MetricCollection
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from lightning_attn.types import DataSchema


class MacroAUROC(Metric):
    """Mean area under the ROC curve of each class against the rest, over the classes where it is defined.

    torchmetrics' own macro mean counts a class that has no example in the split as 0. Here such a class is left out.

    Args:
        num_classes: C.
        **kwargs: See ``torchmetrics.Metric``.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    probabilities: list[Tensor]
    target: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Add a batch: probabilities ``(B, C)``; target, class indices ``(B,)`` or 0/1 columns ``(B, C)``, int64."""
        if target.dim() == 1:
            target = torch.nn.functional.one_hot(target, self.num_classes)
        self.probabilities.append(probabilities.detach().float())
        self.target.append(target)

    def compute(self) -> Tensor:
        """A scalar in [0, 1]; NaN if every class has only positive or only negative examples."""
        probabilities, target = dim_zero_cat(self.probabilities), dim_zero_cat(self.target)
        positives = target.sum(dim=0)
        defined = ((positives > 0) & (positives < len(target))).nonzero().flatten().tolist()
        if not defined:
            return torch.tensor(torch.nan, device=probabilities.device)
        return torch.stack([binary_auroc(probabilities[:, c], target[:, c]) for c in defined]).mean()


def classification_metrics(schema: DataSchema) -> MetricCollection:
    """Loss (a mean of what it is given), micro accuracy, macro F1 and macro AUROC for the kind of labels.

    Args:
        schema: Number of classes, and whether an example may have several.
    """
    classes = schema.num_classes
    metrics: dict[str, Metric | MetricCollection] = {"loss": MeanMetric(), "auroc": MacroAUROC(classes)}
    if not schema.multi_label:
        metrics |= {
            "accuracy": Accuracy("multiclass", num_classes=classes, average="micro"),
            "f1": F1Score("multiclass", num_classes=classes, average="macro"),
        }
    elif classes > 1:
        metrics |= {
            "accuracy": Accuracy("multilabel", num_labels=classes, average="micro"),
            "f1": F1Score("multilabel", num_labels=classes, average="macro"),
        }
    else:
        metrics |= {"accuracy": Accuracy("binary"), "f1": F1Score("binary")}
    # Merging metrics whose states happen to be equal would report one figure twice.
    return MetricCollection(metrics, compute_groups=False)
