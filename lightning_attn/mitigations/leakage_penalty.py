"""A price on the label information that an adversary reads in the attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from lightning_attn.errors import InputError
from lightning_attn.mitigations.base import Mitigation
from lightning_attn.mitigations.mask_classifier import mask_features, mask_places
from lightning_attn.mitigations.outcomes import Outcomes, sum_over_processes
from lightning_attn.ops.softmax import attendable
from lightning_attn.types import AttentionOutput, Batch, DataSchema, MitigatedNetwork

_BINS = 10
_LEAST = -4.0  # of ln(a_i n): what is smaller weighs nothing, and tells nothing
_SPREAD = 1e-8


class MaskDescription(nn.Module):
    """What of the attention may give a label away: how concentrated it is, where it is, and mixtures of both.

    Concentration: mean and attention-weighted mean of ``ln(a_i n)``, and the peak. Places: mean, spread, and mass in
    tenths of the positions. Mixtures: random rectified combinations of ``ln(a_i n)`` and place, pooled by mean and by
    attention, so that a linear reader sees what is not linear in the weights (Rahimi and Recht, NeurIPS 2007). Of all
    of it what uniform weights have is taken off, so that these say nothing, whatever the number of positions.

    Args:
        places: Whether the order of the positions means anything; False for bags.
        size: Random combinations.
    """

    layer: Tensor

    def __init__(self, places: bool = True, size: int = 16) -> None:
        super().__init__()
        self.places = places
        # Drawn apart from torch's state, so that the parameters of the model are the same with and without.
        layer = torch.randn(2 + places, size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("layer", layer)

    @property
    def size(self) -> int:
        """Number of columns."""
        return 3 + (2 + _BINS if self.places else 0) + 2 * self.layer.shape[1]

    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        """Describe.

        Args:
            attention: Shape ``(B, L)``.
            allowed: Positions that may be attended, shape ``(B, L)``, bool.

        Returns:
            Shape ``(B, size)``, all of the order of 1; padding changes nothing.
        """
        uniform = allowed / allowed.sum(dim=-1, keepdim=True).clamp(min=1).to(attention.dtype)
        return self._columns(attention, allowed, uniform) - self._columns(uniform, allowed, uniform)

    def _columns(self, attention: Tensor, allowed: Tensor, uniform: Tensor) -> Tensor:
        features = mask_features(attention, allowed)
        log, place = features[..., 1].clamp(min=_LEAST), features[..., 2]
        columns = [
            (attention * log).sum(dim=-1, keepdim=True),
            (uniform * log).sum(dim=-1, keepdim=True),
            attention.amax(dim=-1, keepdim=True),
        ]
        inputs = [log / 2, torch.ones_like(log)]
        if self.places:
            mean, variance, mass = mask_places(attention, allowed, place, _BINS)
            columns += [mean, variance.clamp(min=_SPREAD).sqrt(), mass]
            inputs.append(2 * place - 1)
        hidden = (torch.stack(inputs, dim=-1) @ self.layer.to(attention.dtype)).relu()
        pooled = torch.stack([uniform, attention], dim=1) @ hidden
        return torch.cat([*columns, pooled.flatten(1)], dim=-1)


def length_description(allowed: Tensor) -> Tensor:
    """What the number of positions tells, whatever the weights; shape ``(B, 2)`` from ``(B, L)``."""
    log = allowed.sum(dim=-1, keepdim=True).clamp(min=1).to(torch.float32).log()
    return torch.cat([log, log.square() / 4], dim=-1)


_LEAST_DEVIATION = 1e-5  # of a column; one that hardly varies tells nothing
_LEAST_SHARE = 1e-3  # of a label


class LeakagePenalty(Mitigation):
    """The scorer pays for what can be told about the label from its weights alone.

    The adversary is a ridge regression from a description of the weights to the label, solved anew in every step from
    the moments of about the last ``memory`` batches: it needs no training, and does not lag behind a scorer that moves.
    A second regression, from the number of positions alone, says what the weights cannot help telling. Where the two
    predict ``p`` and ``r`` for a class of frequency ``f``, the scorer pays
    ``sum_c sqrt(1 + (p - r)^2 / f) - 1``, which for small differences is the divergence between the two in nats.

    A regression explains something by chance, and a price on that would make the scorer shun weights that vary. So the
    difference counts only as far as it is beyond chance: ``p - r`` is shrunk by ``(1 - margin * chance / explained)``,
    at least 0, where chance is the number of columns over that of examples (the positive part of James and Stein). Once
    the weights tell nothing that could be told from chance, nothing is paid.

    Alone it lowers what the weights tell; the head still learns to read what is left. With :class:`RandomMixing` before
    it in a :class:`Compose`, the head has little to gain from reading, and the scorer no reason to tell. Our own, not
    published.

    Args:
        strength: Price of a nat, above 0. Below 1 a head that reads the weights gains more than the scorer pays.
        memory: Batches that the adversary remembers, at least 2: exponentially, the latest weigh most.
        margin: How many times what chance explains is free, 0 or more.

    Raises:
        InputError: An argument is out of its range.
    """

    moments: Tensor
    products: Tensor
    counts: Tensor
    mass: Tensor
    squares: Tensor

    def __init__(self, strength: float = 4.0, memory: int = 50, margin: float = 1.5) -> None:
        if not strength > 0:
            raise InputError(f"LeakagePenalty needs a strength above 0, got {strength}; use NoMitigation for 0.")
        if memory < 2:
            raise InputError(f"LeakagePenalty needs a memory of at least 2 batches, got {memory}.")
        if not margin >= 0:
            raise InputError(f"LeakagePenalty needs a margin of 0 or more, got {margin}.")
        super().__init__()
        self.strength = strength
        self.memory = memory
        self.margin = margin
        self.built = False
        self.adversary_bits = MeanMetric()

    def build(self, schema: DataSchema) -> None:
        """Make room for what is remembered.

        Raises:
            InputError: It was built before: its memory belongs to one network.
        """
        if self.built:
            raise InputError("This LeakagePenalty belongs to a network already; make a new one for another network.")
        self.built = True
        self.outcomes = Outcomes(schema)
        self.description = MaskDescription(places=schema.feature_shape is None or schema.grid is not None)
        size, outcomes = 2 + self.description.size, self.outcomes.frequency.numel()
        self.register_buffer("moments", torch.zeros(size, size))
        self.register_buffer("products", torch.zeros(size, outcomes))
        self.register_buffer("counts", torch.zeros(outcomes))
        self.register_buffer("mass", torch.zeros(()))
        self.register_buffer("squares", torch.zeros(()))

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: MitigatedNetwork) -> Tensor:
        """What the scorer pays, a scalar; the adversary has not seen this batch, and remembers it afterwards."""
        with torch.autocast(output.learned.device.type, enabled=False):
            attention = output.learned.to(torch.promote_types(self.moments.dtype, torch.float32))
            # Special tokens that are attended count too: weight on them is where a label can hide best.
            allowed = attendable(batch) | (attention > 0)
            length = length_description(allowed)
            description = torch.cat([length, self.description(attention, allowed)], dim=-1)
            price = self._price(description, length)
            self._remember(description.detach(), self.outcomes.probabilities(batch).flatten(1).float())
        self.adversary_bits.update(price.detach() / math.log(2))
        return self.strength * price

    def metrics(self) -> dict[str, Metric]:
        """What was paid for, in bits, before the strength."""
        return {"adversary_bits": self.adversary_bits}

    def _price(self, description: Tensor, length: Tensor) -> Tensor:
        """Mean price of a batch in nats; 0, but connected to the weights, as long as nothing is remembered."""
        size = length.shape[1]
        by_weights, explained = self._solve(description.shape[1])
        by_length, explained_by_length = self._solve(size)
        gained = (explained - explained_by_length).clamp(min=torch.finfo(explained.dtype).tiny)
        chance = (description.shape[1] - size) * self._per_example()
        beyond = (1 - self.margin * chance / gained).clamp(min=0)
        centred = description - description.detach().mean(dim=0)
        difference = centred @ by_weights - centred[:, :size] @ by_length
        squared = (difference * beyond).square() / self._frequency().clamp(min=_LEAST_SHARE)
        return ((1 + squared).sqrt() - 1).sum(dim=1).mean() / self.outcomes.columns

    def _frequency(self) -> Tensor:
        """Share of each outcome, shape ``(outcomes,)``."""
        return self.outcomes.columns * self.counts / self.counts.sum().clamp(min=1)

    def _per_example(self) -> Tensor:
        """One over the number of examples that are remembered, those that have faded counted as less than one."""
        return self.squares / self.mass.square().clamp(min=1)

    def _solve(self, size: int) -> tuple[Tensor, Tensor]:
        """The regression on the first ``size`` columns.

        Returns:
            Coefficients, ``(size, outcomes)``, and the share of the variance of each outcome that they explain in what
            is remembered, ``(outcomes,)``.
        """
        full = torch.promote_types(self.moments.dtype, torch.float32)  # linear algebra knows no half precision
        mass = self.mass.to(full).clamp(min=1)
        covariance, shared = self.moments[:size, :size].to(full) / mass, self.products[:size].to(full) / mass
        deviation = covariance.diagonal().sqrt()
        scale = torch.where(deviation > _LEAST_DEVIATION, 1 / deviation.clamp(min=_LEAST_DEVIATION), 0.0)
        correlation, shared = covariance * scale * scale[:, None], shared * scale[:, None]
        # Columns that are like others, or of few examples, share their coefficient instead of having wild ones.
        ridge = (size * self._per_example()).clamp(min=1e-4)
        coefficients = torch.linalg.solve(correlation + ridge * torch.eye(size, device=covariance.device), shared)
        frequency = self._frequency()
        variance = (frequency * (1 - frequency)).clamp(min=_LEAST_SHARE)
        return coefficients * scale[:, None], (shared * coefficients).sum(dim=0) / variance

    @torch.no_grad()
    def _remember(self, description: Tensor, outcome: Tensor) -> None:
        """Add a batch of all processes, and let the older ones fade.

        Columns and outcomes count as they differ within the batch: from batch to batch the weights change by learning,
        and the share of each label by chance, which together would look like dependence.
        """
        keep = 1 - 1 / self.memory
        everything = torch.cat([description, outcome], dim=1)
        count = sum_over_processes(everything.new_tensor(float(len(everything))))
        total = sum_over_processes(everything.sum(dim=0))
        centred = everything - total / count
        size = self.moments.shape[0]
        sums = sum_over_processes(centred[:, :size].T @ centred)
        self.moments.mul_(keep).add_(sums[:, :size])
        self.products.mul_(keep).add_(sums[:, size:])
        self.counts.mul_(keep).add_(total[size:])
        self.mass.mul_(keep).add_(count - 1)
        self.squares.mul_(keep**2).add_(count - 1)
