"""A network is validated and measured in one precision, whatever it is trained in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_attn.callbacks import FaithfulnessCallback, ShortcutProbe
from lightning_attn.experiments import CounterfactualCallback
from lightning_attn.mitigations import LeakagePenalty
from tests.helpers.runs import tiny_data, tiny_module, trainer


def measured() -> list[Any]:
    return [
        FaithfulnessCallback(max_examples=16),
        ShortcutProbe(max_examples=16),
        CounterfactualCallback(splits=["val"], max_examples=16),
    ]


def test_mixed_precision_is_for_training_alone(tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_module(data, sharpness=3.0)
    run = trainer(tmp_path, precision="bf16-mixed", callbacks=measured())
    run.fit(module, data)
    trained = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("val/")}
    run = trainer(tmp_path / "again", callbacks=measured())
    run.validate(module, data, verbose=False)
    again = {name: float(value) for name, value in run.callback_metrics.items()}
    assert trained == pytest.approx(again, rel=1e-5, abs=1e-7)
    assert trained["val/loss"] == pytest.approx(again["val/loss"], rel=1e-6)
    (predicted,) = trainer(tmp_path, precision="bf16-mixed").predict(module, data)[:1]  # type: ignore[index]
    assert predicted["attention"].sum(dim=-1).sub(1).abs().max() < 1e-6


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_every_precision_can_be_probed(precision: str, tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path, precision=precision, callbacks=measured())
    run.fit(tiny_module(data, LeakagePenalty(), sharpness=3.0), data)
    assert {"val/shortcut/evalx_accuracy", "val/faithfulness/kendall_loo"} <= run.callback_metrics.keys()
