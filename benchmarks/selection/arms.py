"""The arms: what acts while selector and reader learn, the cheapest controls first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lightning_attn.mitigations import (
    Compose,
    InstanceWeighting,
    LeakagePenalty,
    Mitigation,
    NoMitigation,
    RandomMixing,
    RandomPretraining,
    WarmStart,
)
from lightning_attn.mitigations.random_attention import BernoulliShare, BernoulliSubset, RandomAttention, UniformSubset


@dataclass(frozen=True)
class Sizes:
    """What an arm is made for: how many positions are selected, epochs of a first phase, steps before weights act."""

    k: int
    first: int
    warmup: int
    seed: int


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        mitigations: What acts, in this order.
        longer: How many times the epochs of the others it has.
        selector_rate: Learning rate of the selector, as a multiple of the reader's.
    """

    mitigations: Callable[[Sizes], list[Mitigation]] = lambda sizes: []
    longer: int = 1
    selector_rate: float = 1.0

    def mitigation(self, sizes: Sizes) -> Mitigation:
        """As one."""
        parts = self.mitigations(sizes)
        return Compose(parts) if len(parts) > 1 else parts[0] if parts else NoMitigation()


Distribution = Callable[[Sizes], RandomAttention]


def subsets(sizes: Sizes) -> RandomAttention:
    """Of the selection's own size."""
    return UniformSubset(sizes.k)


def half(sizes: Sizes) -> RandomAttention:
    """Each position by the toss of a coin, as in REAL-X."""
    return BernoulliSubset(0.5)


def shares(sizes: Sizes) -> RandomAttention:
    """A share per example, from few positions to most."""
    return BernoulliShare(0.05, 0.65)


def all_shares(sizes: Sizes) -> RandomAttention:
    """A share per example, from few positions to all."""
    return BernoulliShare(0.05, 1.0)


def _random(distribution: Distribution, rate: float = 0.0) -> Callable[[Sizes], Mitigation]:
    def made(sizes: Sizes) -> Mitigation:
        then = {"then": "finetune", "finetune_rate": rate} if rate else {"then": "freeze"}
        return RandomPretraining(sizes.first, distribution(sizes), seed=sizes.seed, **then)  # type: ignore[arg-type]

    return made


def _whole(rate: float = 0.0, share: float = 1.0) -> Callable[[Sizes], Mitigation]:
    def made(sizes: Sizes) -> Mitigation:
        epochs = max(1, round(sizes.first * share))
        return WarmStart(epochs, "finetune", rate) if rate else WarmStart(epochs, "freeze")

    return made


def _weighting(sizes: Sizes) -> Mitigation:
    return InstanceWeighting(warmup_steps=sizes.warmup, seed=sizes.seed)


def _mixing(distribution: Distribution) -> Callable[[Sizes], Mitigation]:
    return lambda sizes: RandomMixing(0.5, distribution(sizes), seed=sizes.seed)


def _penalty(sizes: Sizes) -> Mitigation:
    return LeakagePenalty(4.0)


def _arm(*parts: Callable[[Sizes], Mitigation], longer: int = 1, selector_rate: float = 1.0) -> Arm:
    return Arm(lambda sizes: [part(sizes) for part in parts], longer, selector_rate)


NONE, WARM, WARM_FREE, PUBLISHED, PAIR = (
    "none",
    "warm start, frozen",
    "warm start, then free",
    "pretraining, k-subsets",
    "pretraining, k-subsets, and weighting",
)
REAL_X, SHARES, WHOLE_SHARES = "pretraining, Bernoulli (REAL-X)", "pretraining, shares", "whole, then shares"
ARMS: dict[str, Arm] = {
    NONE: _arm(),
    "none, twice the epochs": _arm(longer=2),
    "none, selector at a third": _arm(selector_rate=1 / 3),
    "none, selector at three times": _arm(selector_rate=3.0),
    WARM: _arm(_whole()),
    "warm start, then .3": _arm(_whole(0.3)),
    WARM_FREE: _arm(_whole(1.0)),
    PUBLISHED: _arm(_random(subsets)),
    REAL_X: _arm(_random(half)),
    SHARES: _arm(_random(shares)),
    "pretraining, all shares": _arm(_random(all_shares)),
    "pretraining, shares, then .3": _arm(_random(shares, 0.3)),
    # While the warm start lasts it has the last word; then shares are drawn, and what they say freezes.
    WHOLE_SHARES: _arm(_random(shares), _whole(1.0, 0.5)),
    "whole, then shares, then .3": _arm(_random(shares, 0.3), _whole(1.0, 0.5)),
    "weighting": _arm(_weighting),
    PAIR: _arm(_random(subsets), _weighting),
    "pretraining, shares, and weighting": _arm(_random(shares), _weighting),
    "whole, then shares, and weighting": _arm(_random(shares), _whole(1.0, 0.5), _weighting),
    "mixing, k-subsets": _arm(_mixing(subsets)),
    "mixing, shares": _arm(_mixing(shares)),
    "mixing, shares, and penalty": _arm(_mixing(shares), _penalty),
    "warm start and mixing, shares": _arm(_mixing(shares), _whole(1.0)),
}
