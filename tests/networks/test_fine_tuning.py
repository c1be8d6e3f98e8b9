"""What fine-tuning of pretrained models needs besides: gradient checkpointing, accumulated batches, bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_attn.encoders import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.mitigations import Compose, InstanceWeighting, Mitigation, RandomPretraining
from lightning_attn.networks import AttentionNetwork, PooledNetwork, TransformerNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import DataSchema
from tests.helpers.runs import loader, tiny_data, trainer
from tests.helpers.tiny_models import save_model, tiny_config
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=2, vocabulary_size=30)
NETWORKS: dict[str, Any] = {
    "transformer": lambda folder, **more: TransformerNetwork(str(folder), **more),
    "all-layers": lambda folder, **more: TransformerNetwork(str(folder), layers=[1, 2], **more),
    "encoder": lambda folder, **more: PooledNetwork(PretrainedEncoder(str(folder), **more)),
}


def gradients(network: AttentionNetwork, mitigation: Mitigation | None = None) -> dict[str, torch.Tensor]:
    batch = toy_batch([9, 4, 1, 6], seed=1)
    network.train()
    if mitigation is not None:
        network.set_mitigation(mitigation)
        mitigation.lr_scales(network, 0)
    torch.manual_seed(3)  # dropout is on
    torch.nn.functional.cross_entropy(network(batch).logits, batch.target).backward()
    return {name: one.grad for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mitigation", [None, lambda: RandomPretraining(epochs=1)], ids=["none", "random"])
def test_checkpointing_changes_no_gradient(
    kind: str, name: str, mitigation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(kind)
    setattr(config, "n_layers" if kind == "distilbert" else "num_hidden_layers", 4)
    folder = save_model(tmp_path, config)
    calls = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(1)
        return kernel(*arguments, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    found, numbers = [], []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        network = NETWORKS[name](folder, gradient_checkpointing=checkpointed).build(SCHEMA)
        calls.clear()
        found.append(gradients(network, mitigation and mitigation()))
        numbers.append(len(calls))
    assert found[0].keys() == found[1].keys()
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, msg=key)
    # layers that are computed twice: all of the encoder, three below the last, none below the first
    assert numbers[1] - numbers[0] == {"encoder": 4, "transformer": 3, "all-layers": 0}[name]


def test_models_that_cannot_be_checkpointed_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, tiny_config("albert"))
    for make in NETWORKS.values():
        with pytest.raises(InputError, match="is a albert model, which has no gradient checkpointing"):
            make(folder, gradient_checkpointing=True).build(SCHEMA)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_halves_are_one_batch(name: str, tmp_path: Path) -> None:
    """Accumulated over two batches of four, one step of SGD is that of one batch of eight."""
    folder = save_model(tmp_path / "model", tiny_config("bert"))
    whole = toy_batch([9, 4, 1, 6, 5, 2, 8, 3], seed=1)
    half = [whole.select(torch.arange(start, start + 4)) for start in (0, 4)]
    states = []
    for batches in ([whole], half):
        torch.manual_seed(0)
        network = NETWORKS[name](folder).build(SCHEMA)
        for part in network.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        before = {key: value.clone() for key, value in network.state_dict().items() if value.is_floating_point()}
        module = AttentionClassifier(network, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0))
        trainer(tmp_path, accumulate_grad_batches=len(batches)).fit(module, loader(*batches))
        states.append({key: network.state_dict()[key] - value for key, value in before.items()})
    for key, change in states[0].items():
        torch.testing.assert_close(states[1][key], change, atol=1e-5, rtol=1e-4, msg=key)
    assert max(float(change.abs().max()) for change in states[0].values()) > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_trains_and_stays_finite(name: str, tmp_path: Path) -> None:
    data = tiny_data()
    folder = save_model(tmp_path / "model", tiny_config("bert", data.schema.vocabulary_size))
    network = NETWORKS[name](folder, gradient_checkpointing=True).build(data.schema)
    before = {key: value.clone() for key, value in network.named_parameters()}
    mitigation = Compose([RandomPretraining(epochs=1, then="finetune"), InstanceWeighting(warmup_steps=2)])
    module = AttentionClassifier(network, mitigation, lambda parameters: torch.optim.AdamW(parameters, lr=1e-3))
    run_by = trainer(tmp_path, max_epochs=2, precision="bf16-mixed")
    run_by.fit(module, data)
    assert torch.isfinite(run_by.callback_metrics["train/loss"])
    assert torch.isfinite(run_by.callback_metrics["val/loss"])
    assert all(value.isfinite().all() for value in network.parameters())
    assert all(value.dtype == torch.float32 for value in network.parameters())
    assert any(not torch.equal(network.get_parameter(key), value) for key, value in before.items())
