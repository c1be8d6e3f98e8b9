"""Slow references, written independently of the package: one text, plain loops, hooks on the eager model.

They know BERT's layers by their names and go through them one by one, with the rules of docs/methods.md in their own
words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-9


class Recorded:
    """What went into and came out of every module of a model, in eager attention, for one text."""

    def __init__(self, model: Any, ids: Tensor) -> None:
        self.model = model
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        handles = [module.register_forward_hook(self._keep(name)) for name, module in model.named_modules() if name]
        model.config._attn_implementation = "eager"
        with torch.no_grad():
            self.logits = model(ids[None]).logits[0]
        for handle in handles:
            handle.remove()

    def _keep(self, name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                self.inputs[name] = inputs[0][0]
            if isinstance(output, Tensor):
                self.outputs[name] = output[0]

        return hook


def divided(relevance: float, total: float) -> float:
    return 0.0 if total == 0 else relevance / (total + EPSILON)


def linear(x: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    """For one position: x (I,), weight (J, I), relevance (J,)."""
    products = (x[None] * weight).clamp(min=0)  # both positive or both negative
    share = torch.tensor([divided(float(r), float(z)) for r, z in zip(relevance, products.sum(dim=1), strict=True)])
    return (products * share[:, None]).sum(dim=0)


def linears(x: Tensor, weight: Tensor, relevance: Tensor) -> Tensor:
    return torch.stack([linear(one, weight, r) for one, r in zip(x, relevance, strict=True)])


def added(a: Tensor, b: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    share = torch.zeros_like(relevance)
    for place in range(relevance.numel()):
        share.view(-1)[place] = divided(
            float(relevance.reshape(-1)[place]), float(a.reshape(-1)[place] + b.reshape(-1)[place])
        )
    to_a, to_b, total = a * share, b * share, float(relevance.sum())
    sum_a, sum_b = float(to_a.sum()), float(to_b.sum())
    absolute = abs(sum_a) + abs(sum_b)
    to_a = to_a * divided(divided(abs(sum_a), absolute) * total, sum_a)
    return to_a, to_b * divided(divided(abs(sum_b), absolute) * total, sum_b)


def product(x: Tensor, y: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Not halved: x (N, K), y (K, M), relevance (N, M)."""
    to_x, to_y = torch.zeros_like(x), torch.zeros_like(y)
    z = x @ y
    for n in range(len(x)):
        for m in range(y.shape[1]):
            share = divided(float(relevance[n, m]), float(z[n, m]))
            to_x[n] += x[n] * y[:, m] * share
            to_y[:, m] += x[n] * y[:, m] * share
    return to_x, to_y


@torch.no_grad()
def bert_relevance(
    model: Any, ids: Tensor, target: int, chosen: list[list[int]] | None = None, released: bool = False
) -> tuple[list[Tensor], Tensor]:
    """Maps ``(M, L, L)`` of every layer, the lowest first, and relevance of the embeddings, ``(L, E)``."""
    seen = Recorded(model, ids)
    relevance = torch.zeros_like(seen.logits)
    relevance[target] = 1
    relevance = linear(seen.inputs["classifier"], model.classifier.weight, relevance)
    state = torch.zeros_like(seen.inputs["bert.encoder.layer.0.intermediate.dense"])
    state[0] = linear(seen.inputs["bert.pooler.dense"], model.bert.pooler.dense.weight, relevance)
    maps = []
    heads, size = model.config.num_attention_heads, model.config.hidden_size // model.config.num_attention_heads
    for number in reversed(range(model.config.num_hidden_layers)):
        at = f"bert.encoder.layer.{number}."
        layer = model.bert.encoder.layer[number]
        middle = seen.inputs[at + "intermediate.dense"]
        to_branch, to_middle = added(seen.outputs[at + "output.dense"], middle, state)
        to_branch = linears(seen.inputs[at + "output.dense"], layer.output.dense.weight, to_branch)
        to_middle = to_middle + linears(middle, layer.intermediate.dense.weight, to_branch)
        entering = seen.inputs[at + "attention.self.query"]
        to_branch, to_entering = added(seen.outputs[at + "attention.output.dense"], entering, to_middle)
        out = layer.attention.output.dense.weight
        to_context = linears(seen.inputs[at + "attention.output.dense"], out, to_branch)
        own = layer.attention.self
        q, k, v = (seen.outputs[f"{at}attention.self.{name}"] for name in ("query", "key", "value"))
        to_q, to_k, to_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        layer_maps = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            weights = (q[:, part] @ k[:, part].T / size**0.5).softmax(dim=-1)
            kept = chosen is None or head in chosen[number]
            whole, values = product(weights, v[:, part], to_context[:, part])
            passed = whole / 2 if kept else torch.zeros_like(whole)
            layer_maps.append(whole if released else passed)
            to_v[:, part] = values / 2 if kept else 0
            queries, keys = product(q[:, part], k[:, part].T, passed)
            to_q[:, part], to_k[:, part] = queries / 2, keys.T / 2
        maps.append(torch.stack(layer_maps))
        state = to_entering
        for name, to in (("query", to_q), ("key", to_k), ("value", to_v)):
            state = state + linears(entering, getattr(own, name).weight, to)
    return maps[::-1], state


def bert_gradients(model: Any, ids: Tensor, target: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and their gradients, each ``(M, L, L)`` by layer, from transformers' own eager attention."""
    model.config._attn_implementation = "eager"
    output = model(ids[None], output_attentions=True)
    gradients = torch.autograd.grad(output.logits[0, target], output.attentions)
    return [one[0].detach() for one in output.attentions], [one[0] for one in gradients]


def multiplied(maps: list[Tensor]) -> Tensor:
    """Row of the first position in the product of normalised maps ``(L, L)``, by whole matrices."""
    joined = torch.eye(len(maps[0]))
    for one in maps:
        one = one + torch.eye(len(one))
        joined = (one / one.sum(dim=-1, keepdim=True)) @ joined
    return joined[0]
