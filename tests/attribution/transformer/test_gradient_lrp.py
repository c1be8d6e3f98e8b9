from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_attn.attribution import CPLRP, AttnLRP
from lightning_attn.attribution.transformer.gradient_lrp import derivative_rules
from lightning_attn.networks import TransformerNetwork
from lightning_attn.types import Batch
from tests.helpers.tiny_models import KINDS, toy_transformer
from tests.helpers.toys import alone, toy_batch

TARGET = torch.tensor([0, 2, 1])


@pytest.fixture(scope="module")
def networks() -> dict[str, TransformerNetwork]:
    return {kind: toy_transformer(kind, classes=3) for kind in KINDS}


@pytest.fixture
def batch() -> Batch:
    return toy_batch([7, 3, 5], seed=2, special=True)


def product(x: Tensor, y: Tensor, constant: bool) -> Tensor:
    """The same value either way; with half of the derivative for each factor, or that of the second one alone."""
    return x.detach() @ y if constant else (x @ y.detach() + x.detach() @ y) / 2


def normalised(x: Tensor, layer: Any) -> Tensor:
    deviation = (x.var(dim=-1, unbiased=False, keepdim=True) + layer.eps).sqrt().detach()
    return (x - x.mean(dim=-1, keepdim=True)) / deviation * layer.weight + layer.bias


def shaped(x: Tensor, function: Any) -> Tensor:
    return x * (function(x) / x).detach()


def bert_scores(model: Any, ids: Tensor, target: int, constant: bool, chosen: list[list[int]]) -> Tensor:
    """BERT of one text written out with those derivatives, from its weights alone."""
    embed = model.bert.embeddings
    words = embed.word_embeddings.weight[ids].detach().requires_grad_()
    rest = embed.position_embeddings.weight[: len(ids)] + embed.token_type_embeddings.weight[0]
    state = normalised(words + rest, embed.LayerNorm)
    heads = model.config.num_attention_heads
    size = state.shape[-1] // heads
    for number, layer in enumerate(model.bert.encoder.layer):
        own = layer.attention.self
        contexts = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (one(state)[:, part] for one in (own.query, own.key, own.value))
            weights = (product(q, k.T, False) / math.sqrt(size)).softmax(dim=-1)
            context = product(weights, v, constant)
            contexts.append(context if head in chosen[number] else context.detach())
        middle = normalised(
            layer.attention.output.dense(torch.cat(contexts, dim=-1)) + state, layer.attention.output.LayerNorm
        )
        wide = shaped(layer.intermediate.dense(middle), torch.nn.functional.gelu)
        state = normalised(layer.output.dense(wide) + middle, layer.output.LayerNorm)
    logits = model.classifier(shaped(model.bert.pooler.dense(state[0]), torch.tanh))
    (gradient,) = torch.autograd.grad(logits[target], words)
    return (gradient * words).sum(dim=-1).detach()


@pytest.mark.parametrize("chosen", [[[0, 1], [0, 1]], [[1], [0]], [[], [0, 1]]])
@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_scores_are_those_of_a_model_written_out(
    method: Any, chosen: list[list[int]], networks: dict[str, TransformerNetwork], batch: Batch
) -> None:
    network = networks["bert"]
    found = method(None if chosen == [[0, 1], [0, 1]] else chosen).attribute(network, batch, TARGET)
    for row in range(len(batch)):
        length = int(batch.valid[row].sum())
        inner = batch.inner[row, :length]
        scores = bert_scores(network.model, batch.inputs[row, :length], int(TARGET[row]), method is CPLRP, chosen)
        torch.testing.assert_close(found[row, :length][inner], scores[inner], atol=1e-5, rtol=1e-3)
        assert scores[inner].abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_constant_attention_conserves_without_biases(kind: str, batch: Batch) -> None:
    network = toy_transformer(kind, classes=3)
    with torch.no_grad():
        for name, parameter in network.model.named_parameters():
            if "bias" in name or "position_embeddings" in name or "token_type" in name:
                parameter.zero_()
    nothing_special = batch.replace(special=torch.zeros_like(batch.special))
    scores = CPLRP().attribute(network, nothing_special, TARGET)
    logits = network(batch).logits.gather(1, TARGET[:, None]).squeeze(1)
    torch.testing.assert_close(scores.sum(dim=-1), logits, atol=1e-3, rtol=1e-3)
    assert logits.abs().min() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [AttnLRP(), AttnLRP([[1], [0]]), CPLRP()])
def test_scores_do_not_depend_on_the_batch(
    kind: str, method: Any, networks: dict[str, TransformerNetwork], batch: Batch
) -> None:
    together = method.attribute(networks[kind], batch, TARGET)
    for row in range(len(batch)):
        single = method.attribute(networks[kind], alone(batch, row), TARGET[row : row + 1])
        torch.testing.assert_close(together[row, : single.shape[1]], single[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_stay_and_so_does_the_model(kind: str, networks: dict[str, TransformerNetwork], batch: Batch) -> None:
    network = networks[kind]
    expected = network(batch).logits
    with derivative_rules(network) as ruled:
        found = ruled.run(network.embed(batch).detach().requires_grad_(), batch, CPLRP().attend())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def fail() -> None:
        with derivative_rules(network):
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert torch.equal(network(batch).logits, expected)
    assert not any(module._forward_hooks for module in network.modules())
