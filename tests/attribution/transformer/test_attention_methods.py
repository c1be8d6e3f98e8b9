"""Methods of weights and gradients, against plain loops over transformers' own eager attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_attn.attribution import get
from lightning_attn.attribution.transformer.base import rows_of_product, trace
from lightning_attn.networks import TransformerNetwork
from lightning_attn.types import Batch
from tests.helpers import bert_reference as reference
from tests.helpers.tiny_models import KINDS, toy_transformer
from tests.helpers.toys import alone, toy_batch

TARGET = torch.tensor([0, 2, 1])


@pytest.fixture(scope="module")
def networks() -> dict[str, TransformerNetwork]:
    return {kind: toy_transformer(kind, classes=3) for kind in KINDS}


@pytest.fixture
def batch() -> Batch:
    return toy_batch([7, 3, 5], seed=2, special=True)


def eager(
    network: TransformerNetwork, ids: Tensor, target: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Weights, their gradients, layer inputs and theirs."""
    network.model.config._attn_implementation = "eager"
    output = network.model(ids[None], output_attentions=True, output_hidden_states=True)
    network.model.config._attn_implementation = "sdpa"
    states = output.hidden_states[:-1]
    found = torch.autograd.grad(output.logits[0, target], [*output.attentions, *states], allow_unused=True)
    depth = len(output.attentions)
    split = [one[0] for one in found]
    return (
        [one[0].detach() for one in output.attentions],
        split[:depth],
        [one[0].detach() for one in states],
        split[depth:],
    )


def expected(name: str, network: TransformerNetwork, ids: Tensor, target: int) -> Tensor:
    weights, gradients, states, state_gradients = eager(network, ids, target)
    length = len(ids)
    scores = torch.zeros(length)
    if name == "raw_attention":
        return weights[-1][:, 0].mean(dim=0)
    if name == "rollout":
        return reference.multiplied([one.mean(dim=0) for one in weights])
    if name == "attention_gradient":
        for key in range(length):
            scores[key] = max(0.0, float(gradients[-1][:, :, key].mean()))
        return scores
    if name == "attention_gradcam":
        cam = torch.zeros(length, length)
        for head in range(2):
            cam += weights[-1][head] * gradients[-1][head].mean() / 2
        cam = cam.clamp(min=0)
        return (cam[0] - cam.min()) / (cam.max() - cam.min()) if cam.max() > cam.min() else scores
    for one, state, gradient in zip(weights, states, state_gradients, strict=True):
        for key in range(length):
            scores[key] += one[:, :, key].mean() * (state[key] @ gradient[key])
    return scores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["raw_attention", "rollout", "attention_gradient", "attention_gradcam", "attcat"])
def test_scores_are_those_of_plain_loops(
    kind: str, name: str, networks: dict[str, TransformerNetwork], batch: Batch
) -> None:
    if kind in ("electra", "albert") and name == "attcat":
        pytest.skip("transformers reports what enters the projection of the embeddings in place of the first layer")
    scores = get(name).attribute(networks[kind], batch, TARGET)
    seen = 0.0
    for row in range(len(batch)):
        length = int(batch.valid[row].sum())
        inner = batch.inner[row, :length]
        wanted = expected(name, networks[kind], batch.inputs[row, :length], int(TARGET[row]))[inner]
        size = max(1e-3, float(wanted.abs().max()))
        torch.testing.assert_close(scores[row, :length][inner] / size, wanted / size, atol=1e-4, rtol=1e-3)
        seen = max(seen, float(wanted.abs().max()))
    assert seen > 1e-3 or (name == "attention_gradcam" and kind != "bert")  # there no mean gradient is above 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["raw_attention", "rollout", "attention_gradient", "attention_gradcam", "attcat"])
def test_scores_do_not_depend_on_the_batch(
    kind: str, name: str, networks: dict[str, TransformerNetwork], batch: Batch
) -> None:
    together = get(name).attribute(networks[kind], batch, TARGET)
    for row in range(len(batch)):
        single = get(name).attribute(networks[kind], alone(batch, row), TARGET[row : row + 1])
        torch.testing.assert_close(together[row, : single.shape[1]], single[0], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_traced_is_what_the_layers_read(kind: str, batch: Batch) -> None:
    network = toy_transformer(kind, classes=3)
    traced = trace(network, batch, TARGET)
    assert len(traced.maps) == len(traced.states) == 2
    torch.testing.assert_close(traced.logit, network(batch).logits.gather(1, TARGET[:, None]).squeeze(1))
    for weights in traced.maps:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, 7))
        assert not weights.transpose(1, 3)[~batch.valid].any()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_product_of_maps_worked_out_by_hand() -> None:
    """Two positions: M_1 rows (2/3, 1/3), (0, 1); M_2 rows (1/2, 1/2), (1/3, 2/3); row 0 of M_2 M_1 is (1/3, 2/3)."""
    low, high = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    torch.testing.assert_close(rows_of_product([low, high], torch.tensor([[1.0, 0.0]])), torch.tensor([[1 / 3, 2 / 3]]))
    both = torch.tensor([[1 / 3 + 2 / 9, 2 / 3 + 7 / 9]])
    torch.testing.assert_close(rows_of_product([low, high], torch.tensor([[1.0, 1.0]])), both)
