"""What is compared: each arm is a line that says what it changes of plain training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_attn.attention import AdditiveAttention, Attention, TopShareSelection, UniformAttention
from lightning_attn.encoders import BiLSTM, PatchEncoder
from lightning_attn.mitigations import (
    AttentionDropout,
    Compose,
    InstanceWeighting,
    LeakagePenalty,
    MaskedFineTuning,
    Mitigation,
    NoMitigation,
    RandomMixing,
    RandomPretraining,
)
from lightning_attn.mitigations.random_attention import (
    BernoulliSubset,
    Dirichlet,
    RandomAttention,
    Shuffled,
    SoftmaxNormal,
    Uniform,
    UniformShare,
)
from lightning_attn.networks import ContentFreeNetwork, MaskedInputNetwork, PatchNetwork, PooledNetwork
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.scaling import ConvTaSc, FeatTaSc, LinTaSc, TypeScale, ValueScaling
from lightning_attn.types import Batch

#: An arm's own parameters, where they are not the defaults below.
Setting = Mapping[str, Any]

#: Data that are pictures in patches; all others are texts.
PICTURES = ("patches", "digits")
SHARE = 0.2  # of the positions, selected where attention is hard
DROPOUT = 0.3  # of the embedding; best for `none` on SST's validation split (benchmarks/sst.py)
DISTRIBUTIONS: dict[str, Callable[[], RandomAttention]] = {
    "softmax normal": SoftmaxNormal,
    "Dirichlet": Dirichlet,
    "subsets of a fifth": lambda: UniformShare(SHARE),
    "Bernoulli subsets": BernoulliSubset,
    "shuffled": Shuffled,
}


class SelfFitted(InstanceWeighting):
    """Weighting without cross-fitting: each example is weighted by the estimator that was fitted on it."""

    def _log_probability(self, attention: Tensor, batch: Batch, held_out: bool) -> Tensor:
        return super()._log_probability(attention, batch, held_out=False)


def _drawn(setting: Setting) -> RandomAttention | None:
    return DISTRIBUTIONS[setting["distribution"]]() if "distribution" in setting else None


def mixing(setting: Setting, seed: int) -> Mitigation:
    """Random masks in half of the loss."""
    return RandomMixing(setting.get("share", 0.5), _drawn(setting), seed)


def pretraining(setting: Setting, seed: int) -> Mitigation:
    """Values and head learn under random masks and are frozen."""
    return RandomPretraining(setting.get("epochs", 2), _drawn(setting), seed=seed)


def unfrozen(setting: Setting, seed: int) -> Mitigation:
    """Values and head learn under random masks first, and go on learning."""
    rate = setting.get("rate", 1.0)
    return RandomPretraining(setting.get("epochs", 2), _drawn(setting), "finetune", rate, seed)


def weighting(setting: Setting, seed: int) -> Mitigation:
    """Examples count by ``P(y) / P(y | attention)``."""
    made = SelfFitted if setting.get("fitted") == "on itself" else InstanceWeighting
    return made(floor=setting.get("floor", 0.05), warmup_steps=setting["warmup"], seed=seed)


@dataclass(frozen=True)
class Arm:
    """What an arm changes.

    Attributes:
        mitigations: From its setting and the seed, what acts while training.
        attention: In place of the attention of the network.
        scaling: Scales of the values.
        rival: Whether it is one of the training-time peers that a mitigation of ours has to beat.
        hard: Whether it is for hard selection only.
        tuned: Name and three values of its own parameter, among which validation chooses.
    """

    mitigations: Callable[[Setting, int], list[Mitigation]] = lambda setting, seed: []
    attention: Callable[[], Attention] | None = None
    scaling: Callable[[], ValueScaling] | None = None
    rival: bool = False
    hard: bool = False
    tuned: tuple[str, tuple[Any, ...]] | None = None

    def fits(self, mask: str, data: str = "") -> bool:
        """Whether it makes sense where the mask acts there on these data."""
        if self.scaling is not None:  # the scales are of words whose values are pooled
            return data not in PICTURES and mask in ("local", "contextual", "hard")
        if self.attention is not None:
            return mask != "hard"
        return mask == "hard" or not self.hard


def _dropout(p: float) -> Arm:
    return Arm(lambda setting, seed: [AttentionDropout(p, seed=seed)], rival=True)


SHARES, FLOORS, LENGTHS = (0.3, 0.5, 0.7), (0.02, 0.05, 0.1), (1, 2, 3)
ARMS: dict[str, Arm] = {
    "none": Arm(),
    "uniform attention": Arm(attention=UniformAttention),
    "attention dropout .1": _dropout(0.1),
    "attention dropout .3": _dropout(0.3),
    "attention dropout .5": _dropout(0.5),
    "mixed_uniform": Arm(
        lambda setting, seed: [RandomMixing(setting.get("share", 0.5), Uniform(), seed)],
        rival=True,
        tuned=("share", SHARES),
    ),
    "type_scale": Arm(scaling=TypeScale, rival=True),
    "Lin-TaSc": Arm(scaling=LinTaSc, rival=True),
    "Feat-TaSc": Arm(scaling=FeatTaSc, rival=True),
    "Conv-TaSc": Arm(scaling=ConvTaSc, rival=True),
    "masked fine-tuning": Arm(
        lambda setting, seed: [MaskedFineTuning(setting.get("share", 0.5), seed)],
        rival=True,
        tuned=("share", (0.25, 0.5, 0.75)),
    ),
    "random pretraining": Arm(lambda setting, seed: [pretraining(setting, seed)], tuned=("epochs", LENGTHS)),
    "random pretraining unfrozen": Arm(
        lambda setting, seed: [unfrozen(setting, seed)], tuned=("rate", (0.1, 1.0, 0.3))
    ),
    "weighting": Arm(lambda setting, seed: [weighting(setting, seed)], tuned=("floor", FLOORS)),
    "both": Arm(
        lambda setting, seed: [pretraining(setting, seed), weighting(setting, seed)], tuned=("epochs", LENGTHS)
    ),
    "mixed": Arm(lambda setting, seed: [mixing(setting, seed)], tuned=("share", SHARES)),
    "mixed + weighting": Arm(
        lambda setting, seed: [mixing(setting, seed), weighting(setting, seed)], tuned=("share", SHARES)
    ),
    "mixed + penalty": Arm(
        lambda setting, seed: [mixing(setting, seed), LeakagePenalty(setting.get("strength", 4.0))],
        tuned=("strength", (2.0, 4.0, 8.0)),
    ),
    "REAL-X": Arm(
        lambda setting, seed: [RandomPretraining(setting.get("epochs", 2), BernoulliSubset(), seed=seed)],
        hard=True,
        rival=True,
    ),
}
#: The mitigation of ours that has to beat the others.
OURS = "mixed + penalty"
PUBLISHED = "both"
#: Looked best on the test texts of part 2; the further data of part 3 say whether that holds.
CANDIDATE = "mixed + weighting"
DROPOUTS = ("attention dropout .1", "attention dropout .3", "attention dropout .5")
TASC = ("Lin-TaSc", "Feat-TaSc", "Conv-TaSc")


def mitigation_of(arm: str, setting: Setting, seed: int, masked: bool = False) -> Mitigation:
    """What acts while training; ``masked`` adds masked fine-tuning, the same for all arms (version B)."""
    parts = ARMS[arm].mitigations(setting, seed)
    if masked and not any(isinstance(part, MaskedFineTuning) for part in parts):
        parts = [MaskedFineTuning(seed=seed), *parts]
    return Compose(parts) if parts else NoMitigation()


def network_of(cell: Mapping[str, Any]) -> AttentionNetwork:
    """The network of a cell, without its mitigation: ``mask`` says what the attention weighs."""
    arm, mask = ARMS[cell["arm"]], cell["mask"]

    def encoder(values: Any = "contextual") -> BiLSTM:
        return BiLSTM(cell["embedding"], cell["hidden"], values, DROPOUT)

    made = (arm.attention or AdditiveAttention)()
    attention = TopShareSelection(SHARE, made) if mask == "hard" else made
    if cell["data"] in PICTURES:
        values: Any = "contextual" if mask == "contextual" else "local"
        return PatchNetwork(PatchEncoder(cell["hidden"], cell["hidden"] // 2, values=values), attention)
    if mask == "content-free":
        return ContentFreeNetwork(encoder(), attention)
    if mask == "masked input":
        return MaskedInputNetwork(encoder(), encoder(), attention)
    scaling = None if arm.scaling is None else arm.scaling()
    return PooledNetwork(encoder("contextual" if mask == "contextual" else "local"), attention, scaling=scaling)
