"""Rates by layer and exemptions from weight decay, as groups of the optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import ModernBertConfig, XLMConfig

from lightning_attn.encoders import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.mitigations import Mitigation, NoMitigation
from lightning_attn.networks import AttentionNetwork, PooledNetwork, TransformerNetwork
from lightning_attn.optim import LayerRates, NoDecayOfNormsAndBiases, ParameterRule, parameter_groups
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import DataSchema
from tests.helpers.commands import TINY, last, run, write_config
from tests.helpers.runs import loader, tiny_data, tiny_module, trainer
from tests.helpers.tiny_models import KINDS, save_model, save_tokenizer, tiny_config
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=2, vocabulary_size=30)


def transformer(folder: Path, kind: str) -> AttentionNetwork:
    return TransformerNetwork(str(save_model(folder, tiny_config(kind)))).build(SCHEMA)


def pooled(folder: Path, kind: str) -> AttentionNetwork:
    return PooledNetwork(PretrainedEncoder(str(save_model(folder, tiny_config(kind))))).build(SCHEMA)


def expected_rate(name: str) -> float:
    """By the names that the models give their parameters, 0.5 from layer to layer."""
    if "albert" in name and "layer_groups" in name:
        return 0.5  # one group of shared parameters, the highest
    if "layer.1." in name:
        return 0.5
    if "layer.0." in name:
        return 0.25
    if "embeddings" in name or "embedding_hidden_mapping_in" in name:
        return 0.25 if "albert" in name else 0.125
    return 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [transformer, pooled], ids=lambda make: make.__name__)
def test_the_lower_the_layer_the_lower_its_rate(make: Any, kind: str, tmp_path: Path) -> None:
    network = make(tmp_path, kind)
    settings = LayerRates(0.5).settings(network)
    rates = {name: settings.get(one, {}).get("rate", 1.0) for name, one in network.named_parameters()}
    assert rates == {name: expected_rate(f"{kind}.{name}") for name in rates}
    assert set(rates.values()) == ({0.25, 0.5, 1.0} if kind == "albert" else {0.125, 0.25, 0.5, 1.0})


def test_a_stack_that_stands_by_itself_is_found(tmp_path: Path) -> None:
    config = ModernBertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, pad_token_id=0
    )
    network = PooledNetwork(PretrainedEncoder(str(save_model(tmp_path, config)))).build(SCHEMA)
    settings = LayerRates(0.5).settings(network)
    rates = {name.removeprefix("encoder.backbone."): settings.get(p, {}) for name, p in network.named_parameters()}
    assert rates["embeddings.tok_embeddings.weight"] == {"rate": 0.125}
    assert rates["layers.0.attn.Wqkv.weight"] == {"rate": 0.25}
    assert rates["layers.1.attn.Wqkv.weight"] == {"rate": 0.5}
    assert rates["final_norm.weight"] == {}


def test_vectors_are_not_decayed_and_rules_apply_together(tmp_path: Path) -> None:
    network = transformer(tmp_path, "bert")
    module = AttentionClassifier(
        network,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3),
        parameter_rules=[LayerRates(0.5), NoDecayOfNormsAndBiases()],
    )
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    found = {
        id(parameter): (round(group["lr"], 9), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in network.named_parameters():
        plain = "LayerNorm" in name or name.endswith("bias")
        assert found[id(parameter)] == (round(0.1 * expected_rate(name), 9), 0.0 if plain else 0.3), name
    assert len(found) == len(list(module.parameters()))
    assert len(optimizer.param_groups) == 8


def test_a_later_rule_overrules_an_earlier_one() -> None:
    class Twice(ParameterRule):
        def __init__(self, rate: float) -> None:
            self.rate = rate

        def settings(self, network: AttentionNetwork) -> Any:
            return {parameter: {"rate": self.rate} for parameter in network.parameters()}

    network = tiny_module(tiny_data()).network
    (group,) = parameter_groups(network, network, [Twice(0.5), Twice(0.25)])
    assert group["rate"] == 0.25
    assert len(group["params"]) == len(list(network.parameters()))


class Slow(Mitigation):
    """Lets the value path learn at a tenth of the rate."""

    def lr_scales(self, network: AttentionNetwork, epoch: int) -> dict[nn.Module, float]:
        return dict.fromkeys(network.value_path(), 0.1)


def test_what_a_mitigation_slows_down_is_slowed_down_further(tmp_path: Path) -> None:
    """One step of SGD moves a parameter by its gradient times rate, layer's share and the mitigation's."""
    folder = save_model(tmp_path / "model", tiny_config("bert"))

    def moved(rules: list[ParameterRule], mitigation: Mitigation) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = TransformerNetwork(str(folder)).build(SCHEMA)
        for part in network.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        module = AttentionClassifier(network, mitigation, lambda g: torch.optim.SGD(g, lr=10.0), parameter_rules=rules)
        trainer(tmp_path).fit(module, loader(toy_batch()))
        return {name: network.get_parameter(name).detach() - value for name, value in before.items()}

    plain, slowed = moved([], NoMitigation()), moved([LayerRates(0.5)], Slow())
    for name in ("model.bert.encoder.layer.0.output.dense.weight", "model.classifier.weight"):
        torch.testing.assert_close(slowed[name], plain[name] * expected_rate(name) * 0.1, rtol=1e-2, atol=1e-6)
        assert plain[name].abs().max() > 1e-3
    scorer = "model.bert.encoder.layer.1.attention.self.query.weight"  # which the mitigation leaves at full rate
    torch.testing.assert_close(slowed[scorer], plain[scorer] * 0.5, rtol=1e-2, atol=1e-6)
    assert plain[scorer].abs().max() > 1e-4


def test_the_command_line_takes_rules_and_a_checkpoint_goes_on_with_them(tmp_path: Path) -> None:
    texts = ["the plot was not dull .", "a superb cast"]
    model = tmp_path / "model"
    save_model(model, tiny_config("bert", save_tokenizer(model, texts)))
    processor = {"class_path": "HuggingFaceProcessor", "init_args": {"name_or_path": str(model), "max_length": 64}}
    data = {**TINY["data"], "init_args": {**TINY["data"]["init_args"], "processor": processor}}
    classifier = {
        "class_path": "AttentionClassifier",
        "init_args": {
            "network": {"class_path": "TransformerNetwork", "init_args": {"name_or_path": str(model)}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "lr_scheduler": {"class_path": "WarmupLinear", "init_args": {"warmup": 0.1}},
            "parameter_rules": [
                {"class_path": "LayerRates", "init_args": {"decay": 0.5}},
                {"class_path": "NoDecayOfNormsAndBiases"},
            ],
        },
    }
    config = write_config(tmp_path, model=classifier, data=data)
    folder = run("fit", config, tmp_path / "runs", "--trainer.max_epochs=1")
    groups = last(folder)["optimizer_states"][0]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.01, 0.005, 0.0025, 0.00125}
    run("test", config, tmp_path / "runs", f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}")


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a decay in \(0, 1\], not 0"):
        LayerRates(0)
    with pytest.raises(InputError, match="LayerRates is for pretrained models, and PooledNetwork has none"):
        LayerRates().settings(tiny_module(tiny_data()).network)
    config = XLMConfig(vocab_size=30, emb_dim=16, n_layers=2, n_heads=2, max_position_embeddings=64)
    network = PooledNetwork(PretrainedEncoder(str(save_model(tmp_path, config)))).build(SCHEMA)
    with pytest.raises(InputError, match="cannot tell the 2 layers of a XLMModel apart"):
        LayerRates().settings(network)
