"""The speed of relevance: both sides compute the same, tokens are counted right, and every method has a line."""

from __future__ import annotations

import pytest
import torch

from benchmarks import lrp
from lightning_attn.perturbation.perturbations import Delete
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.types import Batch, DataSchema
from tests.helpers.tiny_models import toy_transformer


def test_every_method_is_compared_after_parity(capsys: pytest.CaptureFixture[str]) -> None:
    network = toy_transformer()
    batch = lrp.batch_of([9, 14, 12], 30)
    found = lrp.compare(network.model, network, batch, "three texts", 1)
    assert set(found) == {*lrp.METHODS, "sweep"}
    assert all(value > 0 for value in found.values())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(lrp.METHODS) + 1
    for line, (name, ratio) in zip(lines[:-1], list(found.items())[:-1], strict=True):
        assert name in line
        assert line.endswith("missed)") == (ratio > lrp.LRP_TARGET)


def test_a_method_that_depends_on_padding_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = toy_transformer(), lrp.batch_of([9, 14], 30)
    target = lrp.plain_logits(network.model, batch).argmax(dim=-1)
    original = lrp.FullLRP.attribute

    def padded(self: lrp.FullLRP, network: object, batch: Batch, target: torch.Tensor) -> torch.Tensor:
        return original(self, network, batch, target) * batch.inputs.shape[1]  # type: ignore[arg-type]

    scores = torch.rand(2, 14).masked_fill(~batch.inner, 0.0)
    lrp.check(network.model, network, batch, target, scores)
    monkeypatch.setattr(lrp.FullLRP, "attribute", padded)
    with pytest.raises(AssertionError, match="full LRP differs"):
        lrp.check(network.model, network, batch, target, scores)


def test_tokens_are_those_that_the_sweep_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = toy_transformer(), lrp.batch_of([9, 14, 5], 30)
    scores = torch.rand(3, 14, generator=torch.Generator().manual_seed(0)).masked_fill(~batch.inner, 0.0)
    requests = lrp.requests_of(batch, scores)
    read = 0
    original = type(network).forward

    def counting(self: object, batch: Batch, **named: object) -> object:
        nonlocal read
        read += int(batch.valid.sum())
        return original(self, batch, **named)  # type: ignore[arg-type]

    full = network(batch).logits.softmax(dim=-1).detach()
    monkeypatch.setattr(type(network), "forward", counting)
    with torch.no_grad():
        sweep(network, batch, requests, Delete(), full=full)
    assert read == lrp.tokens_read(batch, requests)


def test_a_model_without_a_folder_has_the_shape_of_minilm() -> None:
    schema = DataSchema(num_classes=2, vocabulary_size=30522)
    assert lrp.batch_of([5, 3], schema.vocabulary_size or 0).special.sum() == 4
    config = lrp.model_of(None).config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (6, 384, 12)
