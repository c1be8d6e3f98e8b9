"""From a task and a modality to bags: `make_bags`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_attn.data.bags.confounders import Confounder, Draft
from lightning_attn.data.bags.dataset import Bags
from lightning_attn.data.bags.modalities.base import Modality
from lightning_attn.data.bags.sizes import BagSize
from lightning_attn.data.bags.streams import stream
from lightning_attn.data.bags.tasks import BagTask, Role
from lightning_attn.data.encoded import Array, offsets_of
from lightning_attn.errors import InputError


def make_bags(
    task: BagTask,
    modality: Modality,
    size: BagSize,
    witness_rate: float,
    count: int,
    split: str,
    seed: int,
    confounders: Sequence[Confounder] = (),
) -> Bags:
    """Bags of one split, the same on every machine.

    The size of a bag is drawn first; then two binomial numbers of so many trials at the witness rate, which the task
    turns into numbers of A and of B; the rest is background, each instance of any background kind with equal
    probability. The instances stand in random order, and their features are drawn last, so order carries nothing.

    Args:
        task: Decides labels and roles.
        modality: Gives the features.
        size: Gives the sizes.
        witness_rate: Expected share of A in a bag that holds A, and of B likewise, before it is moved to what the bag's
            class allows, in [0, 1].
        count: Number of bags B.
        split: ``train``, ``val`` or ``test``: other bags, from other instances.
        seed: Another seed, other bags.
        confounders: Applied one after another.

    Raises:
        InputError: Bags are too small for the task, or the modality has too few kinds.
    """
    if size.least < task.least:
        raise InputError(
            f"{task.describe()} needs bags of at least {task.least} instances, but the size may be {size.least}."
        )
    ordinary, reserved = _background(task, modality, confounders)
    generator = stream(seed, "bags", split)
    sizes = size.draw(generator, count)
    drawn = generator.binomial(sizes[:, None], witness_rate, size=(count, 2))
    counts = task.counts(sizes, drawn, *task.plan(count))
    labels = task.label(counts)

    bag = np.repeat(np.arange(count), sizes)
    place = np.arange(len(bag)) - offsets_of(sizes)[bag]
    ends = counts.cumsum(axis=1)[bag]
    letter = (place[:, None] >= ends).sum(axis=1)  # 0 for A, 1 for B, 2 for background
    kinds = np.where(letter < 2, letter, ordinary[generator.integers(len(ordinary), size=len(bag))])
    draft = Draft(kinds, letter == 2, bag, labels, ordinary, split)
    for number, (confounder, own) in enumerate(zip(confounders, reserved, strict=True)):
        draft.kinds = confounder.kinds(draft, own, stream(seed, f"confounder {number}", split))
    shuffled = np.lexsort((generator.random(len(bag)), bag))  # within each bag
    letter, kinds = letter[shuffled], draft.kinds[shuffled]

    roles = np.where(letter < 2, task.roles(counts)[bag, np.minimum(letter, 1)], Role.NEUTRAL).astype(np.int8)
    features, source = modality.instances(kinds, split, seed)
    return Bags(
        features=features,
        offsets=offsets_of(sizes),
        labels=labels,
        evidence=np.isin(roles, [int(role) for role in task.decisive]).astype(np.float32),
        source=source,
        roles=roles,
        kinds=kinds,
    )


def flip_labels(labels: Array, classes: int, share: float, seed: int) -> Array:
    """Labels of which a share, rounded to whole bags, is exchanged for another class, any with equal probability."""
    generator = stream(seed, "label noise", "train")
    chosen = generator.choice(len(labels), round(share * len(labels)), replace=False)
    flipped: Array = labels.copy()
    flipped[chosen] = (labels[chosen] + generator.integers(1, classes, size=len(chosen))) % classes
    return flipped


def _background(task: BagTask, modality: Modality, confounders: Sequence[Confounder]) -> tuple[Array, list[Array]]:
    """The kinds of ordinary background, and those that each confounder has for itself, the last ones."""
    asked = sum(confounder.reserved for confounder in confounders)
    needed = task.letters + 1 + asked
    if modality.num_kinds < needed:
        raise InputError(
            f"{task.describe()} needs {needed} kinds of instances ({task.letters} that decide, 1 background"
            f"{f', {asked} for confounders' if asked else ''}), but {type(modality).__name__} has {modality.num_kinds}."
        )
    kinds = np.arange(task.letters, modality.num_kinds)
    ends = np.cumsum([len(kinds) - asked, *(confounder.reserved for confounder in confounders)])
    ordinary, *reserved = np.split(kinds, ends[:-1])
    return ordinary, reserved
