"""Tiny seeded bags, and one network of every kind that reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lightning_attn.attention import (
    AdditiveAttention,
    GatedAttention,
    MultiHeadAdditiveAttention,
    MultiHeadGatedAttention,
    TopKSelection,
    UniformAttention,
)
from lightning_attn.data.bags import (
    Conjunction,
    Count,
    ExclusiveOr,
    FourBags,
    Majority,
    Presence,
    PresenceWithVeto,
)
from lightning_attn.encoders import MLP, Identity, LeNet, PatchEncoder, PictureCNN
from lightning_attn.networks import (
    AdditiveBagNetwork,
    AttentionNetwork,
    BagNetwork,
    BagSelectorNetwork,
    ClassBagNetwork,
    MaxBagNetwork,
    MLPClassifier,
    MultiHeadBagNetwork,
    PatchNetwork,
    PictureSelectorNetwork,
)
from lightning_attn.types import Batch, DataSchema

FEATURES = (6,)

BAG_NETWORKS: dict[str, Callable[[], AttentionNetwork]] = {
    "additive": lambda: BagNetwork(MLP((8, 5), dropout=0.3), AdditiveAttention()),
    "gated": lambda: BagNetwork(MLP((7,)), GatedAttention(6, temperature=0.5), MLPClassifier(6, dropout=0.3)),
    "identity": lambda: BagNetwork(Identity(), GatedAttention(6)),
    "mean": lambda: BagNetwork(MLP((7,)), UniformAttention()),
    "max": lambda: MaxBagNetwork(MLP((7,)), MLPClassifier(6)),
    "sum": lambda: AdditiveBagNetwork(MLP((7,)), GatedAttention(6)),
    "multihead": lambda: MultiHeadBagNetwork(MLP((7,)), MultiHeadGatedAttention(6), MLPClassifier(6), heads=3),
    "multihead-additive": lambda: MultiHeadBagNetwork(MLP((7,)), MultiHeadAdditiveAttention(), heads=2),
    "class": lambda: ClassBagNetwork(MLP((7,)), MultiHeadGatedAttention(6, temperature=0.5)),
    "patches": lambda: PatchNetwork(PatchEncoder(7, 5, layers=2), AdditiveAttention(6)),
    "patches-contextual": lambda: PatchNetwork(PatchEncoder(7, 5, layers=1, values="contextual")),
    "patches-selector": lambda: PictureSelectorNetwork(
        PatchEncoder(7, 5, layers=1, values="contextual"), PictureCNN(6, (3, 4, 4)), TopKSelection(3)
    ),
    "bag-selector": lambda: BagSelectorNetwork(MLP((7,)), MLP((6,)), TopKSelection(3)),
}


def toy_bags(
    sizes: Sequence[int] = (7, 1, 12, 4),
    seed: int = 0,
    feature_shape: tuple[int, ...] = FEATURES,
    classes: int = 3,
    multi_label: bool = False,
) -> Batch:
    """Padded bags of normal features, about a third of the instances marked as evidence; padding holds garbage."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    if multi_label:
        target = torch.randint(0, 2, (len(sizes), classes), generator=generator).float()
    else:
        target = torch.randint(0, classes, (len(sizes),), generator=generator)
    return Batch(
        inputs=torch.randn(*valid.shape, *feature_shape, generator=generator),
        valid=valid,
        special=torch.zeros_like(valid),
        target=target,
        index=torch.arange(len(sizes)) + 100 * seed,
        evidence=(valid & (torch.rand(valid.shape, generator=generator) < 0.3)).float(),
    )


def toy_bag_network(
    kind: str = "gated",
    classes: int = 3,
    multi_label: bool = False,
    sharpness: float = 2.0,
    feature_shape: tuple[int, ...] = FEATURES,
) -> AttentionNetwork:
    """An untrained network in evaluation mode; ``sharpness`` scales its weights so that outputs differ clearly."""
    torch.manual_seed(0)
    network = BAG_NETWORKS[kind]()
    # Of the toy features, about a third name a cell of this grid, some the same one; the others are nowhere.
    grid = (3, 4) if kind.startswith("patches") else None
    network.build(DataSchema(num_classes=classes, multi_label=multi_label, feature_shape=feature_shape, grid=grid))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(sharpness)
    return network.eval()


def small_lenet() -> LeNet:
    """A LeNet of few units."""
    return LeNet(12, channels=(3, 4))


#: The rules again, from the numbers of A and B, in words of their own.
RULES = {
    Presence: lambda a, b: int(a >= 1),
    Count: lambda a, b: int(a >= 3),
    Conjunction: lambda a, b: int(bool(a) and bool(b)),
    ExclusiveOr: lambda a, b: int(bool(a) != bool(b)),
    Majority: lambda a, b: int(a > b),
    PresenceWithVeto: lambda a, b: int(bool(a) and not b),
    FourBags: lambda a, b: {(0, 0): 0, (1, 0): 1, (0, 1): 2, (1, 1): 3}[min(a, 1), min(b, 1)],
}
