"""How different can attention be while the output stays the same?"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_attn.attention.softmax import masked_softmax
from lightning_attn.gradients import differentiable
from lightning_attn.metrics.functional.permutation import total_variation
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.randomness import normal
from lightning_attn.types import AttentionOutput, Batch

#: Change of the output that the loss tolerates and its price above that, then the change that a result may have.
_TOLERATED, _PRICE, _ACCEPTED = 0.01, 500.0, 0.05


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats of distributions ``(..., L)``, shape ``(...)``, at most ln 2."""
    middle = (p + q) / 2
    floor = 1e-30

    def divergence(r: Tensor) -> Tensor:
        return (r * (r.clamp(min=floor).log() - middle.clamp(min=floor).log())).sum(dim=-1)

    return (divergence(p) + divergence(q)) / 2


def adversarial_jsd(
    network: AttentionNetwork,
    output: AttentionOutput,
    batch: Batch,
    adversaries: int = 5,
    steps: int = 500,
    seed: int = 0,
) -> Tensor:
    """Largest divergence from the attention among adversarial weights that keep the output.

    All adversaries of all examples are fitted together, each example for itself: neither the batch nor the padding
    changes its result. Mass on special tokens stays where it is.

    Args:
        network: Only its ``classify`` runs, with the parameters as they are.
        output: What the network computed for ``batch``.
        batch: B examples.
        adversaries: K adversaries of each example.
        steps: Steps of Adam.
        seed: The start depends on it and on ``batch.index``.

    Returns:
        Shape ``(B,)``, in [0, ln 2]: Jensen-Shannon divergence in nats, 0 if no adversary changes the output by at
        most 0.05; NaN where fewer than two positions can be attended. High: other attention gives the same output.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2.2, as in their code: Adam with
    amsgrad and rate 0.01, a start of 3 * N(0, 1) logits.
    """
    batch = batch.replace(evidence=None)
    with differentiable(network, batch) as copy:
        schema = network.schema
        with torch.no_grad():
            copy = network.read_query(copy)
        many = copy.apply(lambda tensor: tensor.repeat_interleave(adversaries, dim=0))
        values = output.values.detach().clone().repeat_interleave(adversaries, dim=0)
        attention = output.attention.detach().clone()
        full = schema.probabilities(output.logits.detach().clone())[:, None]
        inner = copy.inner
        fixed = attention.masked_fill(inner, 0.0)[:, None]
        mass = attention.masked_fill(~inner, 0.0).sum(dim=-1)[:, None, None]
        length = attention.shape[-1]
        start = [3 * normal(copy.index, length, seed * adversaries + k) for k in range(adversaries)]
        logits = torch.stack(start, dim=1).to(attention.dtype).requires_grad_()
        allowed = inner[:, None].expand_as(logits)
        optimiser = torch.optim.Adam([logits], lr=0.01, amsgrad=True)

        def weights() -> tuple[Tensor, Tensor]:
            """Adversarial weights ``(B, K, L)`` and probabilities ``(B, K, C)``."""
            drawn = fixed + mass * masked_softmax(logits, allowed)
            answer = network.classify(values, drawn.flatten(0, 1), many)
            return drawn, schema.probabilities(answer).reshape(*drawn.shape[:2], -1)

        for _ in range(steps):
            drawn, found = weights()
            excess = ((found - full).abs().sum(dim=-1) - _TOLERATED).relu()
            apart = jensen_shannon(drawn, attention[:, None]) - _PRICE * excess
            spread = jensen_shannon(drawn[:, :, None], drawn[:, None]).mean(dim=(1, 2))
            (logits.grad,) = torch.autograd.grad(-apart.sum() - spread.sum(), logits)
            optimiser.step()
        with torch.no_grad():
            drawn, found = weights()
            kept = total_variation(found, full, schema.multi_label) <= _ACCEPTED
            divergence = jensen_shannon(drawn, attention[:, None]).masked_fill(~kept, 0.0).amax(dim=-1)
            return divergence.clamp(min=0.0).masked_fill(inner.sum(dim=-1) < 2, torch.nan)
