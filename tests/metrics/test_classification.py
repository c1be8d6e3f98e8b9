"""Macro AUROC against scikit-learn, with classes that are missing."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_attn.metrics.classification import MacroAUROC, classification_metrics
from lightning_attn.types import DataSchema


def test_all_classes_present_equals_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(90, 3, generator=generator).softmax(dim=-1)
    target = torch.arange(90) % 3
    metric = MacroAUROC(3)
    for part in range(3):
        rows = slice(30 * part, 30 * (part + 1))
        metric.update(probabilities[rows], target[rows])
    expected = roc_auc_score(target, probabilities, multi_class="ovr", average="macro")
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_a_class_without_examples_is_left_out() -> None:
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    metric = MacroAUROC(3)
    metric.update(probabilities, torch.tensor([0, 1, 0]))
    assert metric.compute() == 1


def test_one_class_alone_is_undefined() -> None:
    metric = MacroAUROC(2)
    metric.update(torch.tensor([[0.8, 0.2]]), torch.tensor([0]))
    assert metric.compute().isnan()


def test_a_single_label_is_a_binary_task() -> None:
    metrics = classification_metrics(DataSchema(num_classes=1, multi_label=True))
    probabilities, target = torch.tensor([[0.9], [0.2], [0.6]]), torch.tensor([[1], [0], [0]])
    for name in ("accuracy", "f1", "auroc"):
        metrics[name].update(probabilities, target)
    assert metrics["accuracy"].compute() == pytest.approx(2 / 3)
    assert metrics["f1"].compute() == pytest.approx(2 / 3)
    assert metrics["auroc"].compute() == 1
