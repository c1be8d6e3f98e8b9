"""Does the network need the weights it learned, or would others do?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attn.errors import InputError
from lightning_attn.experiments.forward import by_parts, computed
from lightning_attn.mitigations.random_attention import RandomAttention, Shuffled, SoftmaxNormal
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.divergence import total_variation
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import mix, seeded
from lightning_attn.types import AttentionOutput, Batch, DataSchema


@dataclass
class Counterfactual:
    """What other weights in place of the learned ones do to each example; every tensor has shape ``(B,)``.

    Attributes:
        change: Change of the output, a total variation distance in [0, 1]; NaN where fewer than two positions can be
            attended, so that there are no other weights.
        same_prediction: 1 where the prediction stays, 0 where it changes, NaN as ``change``. Of a multi-label example
            every label has to stay.
        correct: 1 where the prediction under the other weights is right, 0 where not. Of a multi-label example every
            label has to be right (subset accuracy).
        correct_learned: The same under the learned weights; the difference of the means is the change in accuracy.
    """

    change: Tensor
    same_prediction: Tensor
    correct: Tensor
    correct_learned: Tensor


class AttentionSource(ABC):
    """Where the other weights come from."""

    @abstractmethod
    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        """Weights to put in place of ``output.attention``, a distribution over ``batch.valid``, shape ``(B, L)``.

        Args:
            network: The network under test.
            output: What it computed for ``batch``.
            batch: B padded examples.
        """


class Uniform(AttentionSource):
    """The same weight on every position; what special tokens were given, they keep."""

    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        """See :meth:`AttentionSource.weights`."""
        inner = batch.inner
        return _in_place(inner / inner.sum(dim=-1, keepdim=True).clamp(min=1), output.attention, batch)


class Random(AttentionSource):
    """Weights drawn without looking at the text; what special tokens were given, they keep.

    Args:
        seed: An example's weights depend on it and on ``Batch.index``.
        distribution: What is drawn from; None means ``SoftmaxNormal()``.

    Raises:
        InputError: The distribution is ``Shuffled()``, which takes the weights of other examples of the batch.
    """

    def __init__(self, seed: int = 0, distribution: RandomAttention | None = None) -> None:
        if isinstance(distribution, Shuffled):
            raise InputError(
                "Random draws for each example by itself, and Shuffled() takes the weights of others: use another "
                "distribution, such as SoftmaxNormal()."
            )
        self.seed = seed
        self.distribution = distribution or SoftmaxNormal()

    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        """See :meth:`AttentionSource.weights`."""
        drawn = torch.zeros_like(output.attention)
        seeds = mix(mix(batch.index) + mix(mix(batch.index.new_tensor(self.seed)))).tolist()
        # The distributions draw from PyTorch's global state, so each example needs a start of its own: hence the loop.
        # On the CPU the numbers are the same wherever the network is.
        for row, (seed, inner) in enumerate(zip(seeds, batch.inner, strict=True)):
            if not inner.any():
                continue
            one = torch.ones(1, int(inner.sum()), dtype=torch.bool)
            nothing = torch.zeros(1, dtype=torch.int64)
            with seeded(seed, torch.device("cpu")):
                sample = self.distribution.sample(one.float(), Batch(one.float(), one, ~one, nothing, nothing))
            drawn[row, inner] = sample[0].to(drawn)
        return _in_place(drawn, output.attention, batch)


class Other(AttentionSource):
    """The attention of another trained network that reads the same data.

    Args:
        network: Built network; it goes to the device of the batch.
    """

    def __init__(self, network: AttentionNetwork) -> None:
        self.network = network

    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        """See :meth:`AttentionSource.weights`.

        Raises:
            InputError: The two networks do not read the same data.
        """
        for name in ("vocabulary_size", "feature_shape", "query_vocabulary_size"):
            ours, theirs = (getattr(one.schema, name) for one in (network, self.network))
            if ours != theirs:
                raise InputError(
                    f"The other network's attention cannot be used: it was trained with {name} {theirs}, this one with "
                    f"{ours}; both must be trained on the same data."
                )
        self.network.to(batch.device)
        with torch.no_grad(), evaluating(self.network):
            found: AttentionOutput = self.network(batch.replace(query_vector=None))
        return found.attention.to(output.attention)


def _in_place(inner: Tensor, attention: Tensor, batch: Batch) -> Tensor:
    """The attention with its mass on ``batch.inner`` dealt out as ``inner`` ``(B, L)`` says."""
    mass = attention.masked_fill(~batch.inner, 0.0).sum(dim=-1, keepdim=True)
    return attention.masked_fill(batch.inner, 0.0) + mass * inner.to(attention)


def counterfactual(
    network: AttentionNetwork, batch: Batch, source: AttentionSource, *, max_tokens: int = 16384
) -> Counterfactual:
    """Put other weights in place of the learned ones and see what happens to the output.

    Args:
        network: Built network; its values and its head stay as they are.
        batch: B examples with their targets.
        source: Where the weights come from.
        max_tokens: Positions, padding included, of the texts read at a time.

    Raises:
        InputError: ``max_tokens`` is below 1, or the source does not fit the network.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2, call such weights
    counterfactual; uniform weights and another model's are Wiegreffe and Pinter's, EMNLP 2019,
    https://arxiv.org/abs/1908.04626.
    """

    def replace(output: AttentionOutput, part: Batch) -> Counterfactual:
        with evaluating(network):
            logits = network.classify(output.values, source.weights(network, output, part), part)
        schema = network.schema
        p, q = (schema.probabilities(each.float()) for each in (output.logits, logits))
        learned, other = (_predicted(each, schema) for each in (p, q))
        target = part.target if schema.multi_label else part.target[:, None]
        undefined = part.inner.sum(dim=-1) < 2
        return Counterfactual(
            change=total_variation(p, q, schema.multi_label).masked_fill(undefined, torch.nan),
            same_prediction=(learned == other).all(dim=-1).float().masked_fill(undefined, torch.nan),
            correct=(other == target).all(dim=-1).float(),
            correct_learned=(learned == target).all(dim=-1).float(),
        )

    return by_parts(lambda part: replace(*computed(network, part)), batch, max_tokens)


def _predicted(probabilities: Tensor, schema: DataSchema) -> Tensor:
    """The predicted class, shape ``(B, 1)``; of a multi-label task one 0 or 1 a label, shape ``(B, C)``."""
    return probabilities > 0.5 if schema.multi_label else probabilities.argmax(dim=-1, keepdim=True)
