"""Gradients averaged over points: integrated gradients, SmoothGrad and GradientShap."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor
from typing_extensions import override

from lightning_attn.attribution.base import Attribution, register
from lightning_attn.attribution.gradients import differentiable, explained_probability
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.parts import narrowed, rows_within
from lightning_attn.ops.randomness import normal, uniform
from lightning_attn.types import Batch

_STREAMS = 1 << 20  # seeds that one seed of the user's stands for: more than there are samples


class SquaredAttribution(Attribution):
    """``sum_d A_id^2``, from an attribution ``A_id`` of each number of the embedding of position i.

    At least 0: whether the token speaks for or against the class is lost. Gradients follow the path through the
    attention weights too. Source: Zhang et al., NAACL 2022, https://arxiv.org/abs/2204.10893, who pool all their
    gradient methods so.
    """

    @override
    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """At least 0."""
        return self.elements(network, batch, target).flatten(2).square().sum(dim=-1)

    @abstractmethod
    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """``A``, shape ``(B, L, E)``, without gradient; arguments as in :meth:`Attribution.attribute`."""


@register("integrated_gradients")
class IntegratedGradients(Attribution):
    """Gradient x embedding averaged on the straight path from zero embeddings, summed over the embedding.

    The attributions of a text add up to ``p(x) - p(zero embeddings)``, padding and specials included, up to the steps.
    Source: Sundararajan, Taly and Yan, ICML 2017, https://arxiv.org/abs/1703.01365.

    Args:
        steps: Points on the path.
        max_tokens: Bound on positions in one pass, padding included.
    """

    def __init__(self, steps: int = 50, max_tokens: int = 16384) -> None:
        self.steps = steps
        self.max_tokens = max_tokens

    @override
    def score(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        """Signed."""
        return path_gradients(network, batch, target, self.steps, self.max_tokens).flatten(2).sum(dim=-1)


def path_gradients(
    network: AttentionNetwork, batch: Batch, target: Tensor | None, steps: int, max_tokens: int
) -> Tensor:
    """Integrated gradients of every number of the embeddings, from zero embeddings, shape ``(B, L, E)``.

    Args:
        network: See :meth:`Attribution.attribute`.
        batch: See :meth:`Attribution.attribute`.
        target: See :meth:`Attribution.attribute`.
        steps: Points on the path.
        max_tokens: Bound on positions in one pass, padding included.
    """

    def integrated(_: Tensor, part: Batch, embeddings: Tensor, target: Tensor) -> Tensor:
        def probability(points: Tensor, rows: Tensor) -> Tensor:
            return network.schema.probabilities(network(part.select(rows), embeddings=points).logits)

        elements = CaptumIntegratedGradients(probability).attribute(
            embeddings,
            target=target,
            additional_forward_args=(torch.arange(len(part), device=part.device),),
            n_steps=steps,
            internal_batch_size=max(len(part), rows_within(max_tokens, embeddings.shape[1])),
        )
        return cast(Tensor, elements).detach().to(embeddings.dtype)  # captum's steps are of single precision

    return _in_parts(network, batch, target, max_tokens, steps, integrated)


def _in_parts(
    network: AttentionNetwork,
    batch: Batch,
    target: Tensor | None,
    max_tokens: int,
    points: int,
    compute: Callable[[Tensor, Batch, Tensor, Tensor], Tensor],
) -> Tensor:
    """Elements of all texts, shape ``(B, L, E)``, some texts of similar lengths at a time.

    Args:
        network: See :meth:`Attribution.attribute`.
        batch: See :meth:`Attribution.attribute`.
        target: See :meth:`Attribution.attribute`.
        max_tokens: Bound on positions in one pass, padding included.
        points: How often each text is read.
        compute: From rows of the batch, these texts, their embeddings and their targets to their elements.
    """
    with differentiable(network, batch) as copy:
        with torch.no_grad():
            copy = network.read_query(copy)
            embeddings = network.embed(copy)
            explained = network(copy).logits.argmax(dim=-1) if target is None else target.clone()
        elements = torch.zeros_like(embeddings)
        for rows, part in narrowed(copy, max_tokens, points, network.schema.spans):
            width = part.valid.shape[1]
            elements[rows, :width] = compute(rows, part, embeddings[rows, :width], explained[rows])
    return elements


@register("squared_integrated_gradients")
class SquaredIntegratedGradients(SquaredAttribution):
    """Integrated gradients from zero embeddings, by captum, pooled by their squares.

    The signed sum is ``integrated_gradients``. Source: Sundararajan, Taly and Yan, ICML 2017,
    https://arxiv.org/abs/1703.01365.

    Args:
        steps: Points on the path; 25 in Zhang et al. 2022.
        max_tokens: Bound on positions in one pass, padding included.
    """

    def __init__(self, steps: int = 25, max_tokens: int = 16384) -> None:
        self.steps = steps
        self.max_tokens = max_tokens

    @override
    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        return path_gradients(network, batch, target, self.steps, self.max_tokens).detach()


class SampledGradient(SquaredAttribution):
    """The mean over samples of ``dp/de`` at some point, times some factor.

    captum has both methods, but draws from a generator of the whole process, so that attributions would depend on what
    else stands in the batch. Here the draws are functions of ``Batch.index``, the sample and the seed.

    Args:
        samples: Number of points; 25 in Zhang et al. 2022.
        seed: Another seed gives other points.
        max_tokens: Bound on positions in one pass, padding included; a single sample of the batch may exceed it.

    Raises:
        InputError: There are no samples.
    """

    def __init__(self, samples: int = 25, seed: int = 0, max_tokens: int = 16384) -> None:
        if samples < 1:
            raise InputError(f"{type(self).__name__} needs at least 1 sample, not {samples}.")
        self.samples = samples
        self.seed = seed
        self.max_tokens = max_tokens

    @override
    def elements(self, network: AttentionNetwork, batch: Batch, target: Tensor | None) -> Tensor:
        def mean(rows: Tensor, part: Batch, embeddings: Tensor, target: Tensor) -> Tensor:
            return self.for_rows(rows)._mean(network, part, embeddings, target)

        return _in_parts(network, batch, target, self.max_tokens, self.samples, mean)

    def _mean(self, network: AttentionNetwork, batch: Batch, embeddings: Tensor, target: Tensor) -> Tensor:
        total = torch.zeros_like(embeddings)
        together = rows_within(self.max_tokens, batch.valid.numel())
        for first in range(0, self.samples, together):
            numbers = range(first, min(first + together, self.samples))
            drawn = [self.draw(embeddings, batch, number) for number in numbers]
            points = torch.cat([point for point, _ in drawn]).requires_grad_()
            rows = torch.arange(len(batch), device=batch.device).repeat(len(numbers))
            logits = network(batch.select(rows), embeddings=points).logits
            (gradient,) = torch.autograd.grad(explained_probability(network, logits, target[rows]).sum(), points)
            gradients = gradient.view(len(numbers), *embeddings.shape)
            for each, (_, factor) in zip(gradients, drawn, strict=True):
                total += each if factor is None else each * factor
        return total / self.samples

    def for_rows(self, rows: Tensor) -> SampledGradient:
        """The same for some of the examples, by their rows; what keeps something of each example overrides it."""
        return self

    @abstractmethod
    def draw(self, embeddings: Tensor, batch: Batch, sample: int) -> tuple[Tensor, Tensor | None]:
        """A point for each example, shape ``(B, L, E)``, and what to multiply the gradient there by, None for 1."""

    def stream(self, sample: int) -> int:
        """The seed of a sample."""
        return self.seed * _STREAMS + sample


@register("smooth_gradient")
class SmoothGradient(SampledGradient):
    """``sum_d (mean_k dp/de_id at e + noise_k)^2``, with normal noise on every number.

    Source: Smilkov et al., 2017, https://arxiv.org/abs/1706.03825, as pooled by Zhang et al. 2022.

    Args:
        noise: Standard deviation of the noise over the range (largest less smallest number) of the text's embeddings;
            0.1 to 0.2 in the paper.
        samples: See :class:`SampledGradient`.
        seed: See :class:`SampledGradient`.
        max_tokens: See :class:`SampledGradient`.
    """

    def __init__(self, noise: float = 0.15, samples: int = 25, seed: int = 0, max_tokens: int = 16384) -> None:
        super().__init__(samples, seed, max_tokens)
        if noise < 0:
            raise InputError(f"{type(self).__name__} needs noise of 0 or more, not {noise}.")
        self.noise = noise

    def draw(self, embeddings: Tensor, batch: Batch, sample: int) -> tuple[Tensor, Tensor | None]:
        """The embeddings with noise on every position that is not special; see :meth:`SampledGradient.draw`."""
        flat = embeddings.flatten(2)
        outside = ~batch.inner[..., None]
        highest = flat.masked_fill(outside, -torch.inf).amax(dim=(1, 2))
        lowest = flat.masked_fill(outside, torch.inf).amin(dim=(1, 2))
        deviation = self.noise * (highest - lowest).nan_to_num(0.0, 0.0, 0.0)
        # Number i of an example does not depend on how far the batch is padded.
        noise = normal(batch.index, flat[0].numel(), self.stream(sample)).view_as(flat).to(flat)
        moved = flat + (noise * deviation[:, None, None]).masked_fill(outside, 0.0)
        return moved.view_as(embeddings), None


@register("gradient_shap")
class GradientShap(SampledGradient):
    """``sum_d (mean_k (e_id - r_id) dp/de_id at r + alpha_k (e - r))^2``, alpha uniform in (0, 1), r the reference.

    Here the reference is zero, so that the mean is that of integrated gradients, up to the draws. Source: Lundberg and
    Lee, NeurIPS 2017, https://arxiv.org/abs/1705.07874; Erion et al., 2021, https://arxiv.org/abs/1906.10670, as
    captum's ``GradientShap`` has it.

    Args:
        samples: See :class:`SampledGradient`.
        seed: See :class:`SampledGradient`.
        max_tokens: See :class:`SampledGradient`.
    """

    def draw(self, embeddings: Tensor, batch: Batch, sample: int) -> tuple[Tensor, Tensor | None]:
        """A point between reference and text; see :meth:`SampledGradient.draw`."""
        reference = self.reference(embeddings, batch, sample)
        difference = embeddings - reference
        share = uniform(batch.index, 1, self.stream(sample)).to(embeddings)
        return reference + share.view(-1, *[1] * (embeddings.dim() - 1)) * difference, difference

    def reference(self, embeddings: Tensor, batch: Batch, sample: int) -> Tensor:
        """What a sample starts from, shape ``(B, L, E)``: zero."""
        return torch.zeros_like(embeddings)
