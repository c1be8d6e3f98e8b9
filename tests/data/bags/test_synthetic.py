import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import seed_everything
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lightning_attn.data.bags import (
    BagDataModule,
    BagTask,
    Conjunction,
    CorrelatedBackground,
    Count,
    Digits,
    ExclusiveOr,
    ExpressionCounts,
    FixedSize,
    FourBags,
    GaussianClusters,
    Majority,
    Modality,
    MotifSequences,
    NormalSize,
    Poison,
    Presence,
    PresenceWithVeto,
    Role,
)
from lightning_attn.errors import InputError
from tests.helpers.toy_bags import RULES

TASKS = [Presence(), Count(), Conjunction(), ExclusiveOr(), Majority(), PresenceWithVeto(), FourBags()]
MODALITIES = [GaussianClusters(), ExpressionCounts(), MotifSequences(), MotifSequences(words=3), Digits()]
#: Drawn once, on another machine than yours.
LENGTHS = [9, 3, 5, 6]
KINDS = [4, 2, 2, 3, 2, 3, 2, 3, 3, 2, 0, 1, 0, 3, 4, 3, 3, 0, 0, 1, 1, 0, 1]
FEATURES = [[4.792496, -0.672943, -0.469009], [-3.032213, -1.075802, -0.496143]]
tasks = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
modalities = pytest.mark.parametrize("modality", MODALITIES, ids=lambda modality: modality.describe())


def opened(task: BagTask | None = None, modality: Modality | None = None, **arguments) -> BagDataModule:
    data = BagDataModule(task, modality, **{"train_size": 60, "val_size": 30, "test_size": 30, **arguments})
    data.prepare_data()
    data.setup()
    return data


def digest(data: BagDataModule, split: str = "train") -> str:
    found = data.dataset(split)
    state = hashlib.sha256()
    for array in (found.features, found.lengths, found.labels, found.roles, found.evidence):
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


@given(
    task=st.sampled_from(TASKS),
    rate=st.floats(0, 1),
    mean=st.floats(4, 12),
    sd=st.floats(0, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_labels_and_evidence_follow_from_what_is_in_the_bags(
    task: BagTask, rate: float, mean: float, sd: float, seed: int
) -> None:
    data = opened(task, size=NormalSize(mean, sd, least=3), witness_rate=rate, seed=seed)
    for split in data.splits:
        found = data.dataset(split)
        for row in range(len(found)):
            inside = slice(found.offsets[row], found.offsets[row + 1])
            kinds, roles, evidence = found.kinds[inside], found.roles[inside], found.evidence[inside]
            a, b = int((kinds == 0).sum()), int((kinds == 1).sum() * (task.letters == 2))
            assert found.labels[row] == RULES[type(task)](a, b)
            assert (roles[kinds >= task.letters] == Role.NEUTRAL).all()
            expected = task.roles(np.array([[a, b]]))[0]
            for letter in range(task.letters):
                assert (roles[kinds == letter] == expected[letter]).all()
            assert ((evidence == 1) == np.isin(roles, list(task.decisive))).all()
            assert set(evidence.tolist()) <= {0.0, 1.0}


@tasks
def test_classes_are_equally_frequent_in_every_split(task: BagTask) -> None:
    data = opened(task)
    for split in data.splits:
        assert np.ptp(np.bincount(data.dataset(split).labels)) <= 1
    assert data.schema.class_names == task.classes


@modalities
def test_no_instance_stands_in_two_splits(modality: Modality) -> None:
    data = opened(Conjunction(), modality, train_size=300, val_size=200, test_size=200)
    seen = {}
    for split in data.splits:
        features = data.dataset(split).features
        seen[split] = {row.tobytes() for row in features}
        assert len(seen[split]) > 100
    if isinstance(modality, MotifSequences) and modality.words is not None:
        return  # sequences differ, the numbers of their words need not
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


@modalities
def test_the_seed_matters_and_repeats(modality: Modality) -> None:
    first = opened(Presence(), modality)
    seed_everything(1, verbose=False)  # nothing is drawn from global generators
    again = opened(Presence(), type(modality)(**({"words": 3} if getattr(modality, "words", None) else {})))
    other = opened(Presence(), modality, seed=1)
    for split in first.splits:
        assert digest(first, split) == digest(again, split)
        assert digest(first, split) != digest(other, split)
    assert digest(first, "val") != digest(first, "test")


def test_drawing_bags_leaves_the_global_generators_alone() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    opened(modality=ExpressionCounts())
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()


def test_bags_are_the_same_on_every_machine() -> None:
    modality = GaussianClusters(clusters=5, dim=3, distance=4.0)
    train = opened(Conjunction(), modality, size=NormalSize(6, 2, 3), train_size=4, confounders=[Poison()]).dataset(
        "train"
    )
    assert train.lengths.tolist() == LENGTHS
    assert train.kinds.tolist() == KINDS
    np.testing.assert_allclose(train.features[:2], FEATURES, rtol=1e-6)


@tasks
def test_the_order_of_instances_carries_nothing(task: BagTask) -> None:
    data = opened(task, size=FixedSize(9), train_size=3000, witness_rate=0.25)
    roles = data.dataset("train").roles.reshape(-1, 9) != Role.NEUTRAL
    share = roles.mean(axis=0)  # at each place
    error = np.sqrt(share.mean() * (1 - share.mean()) / len(roles))
    assert np.abs(share - share.mean()).max() < 4 * error
    # and whether a neighbour is one says no more than any other instance does
    neighbours = (roles[:, 1:] & roles[:, :-1]).mean()
    apart = (roles[:, 2:] & roles[:, :-2]).mean()
    assert neighbours == pytest.approx(apart, abs=4 * error)


def test_the_size_of_a_bag_says_nothing_on_its_label() -> None:
    data = opened(Conjunction(), size=NormalSize(20, 8, 3), train_size=2000)
    train = data.dataset("train")
    assert abs(roc_auc_score(train.labels, train.lengths) - 0.5) < 0.04


def test_sizes_are_drawn_as_asked() -> None:
    train = opened(size=NormalSize(30, 5, least=25), train_size=2000).dataset("train")
    assert train.lengths.min() == 25
    assert train.lengths.mean() == pytest.approx(30.42, abs=0.3)  # 30 + 5 * (phi(1) - Phi(-1))
    assert set(opened(size=FixedSize(7)).dataset("val").lengths) == {7}


def test_the_witness_rate_is_the_share_of_witnesses() -> None:
    train = opened(size=FixedSize(50), witness_rate=0.3, train_size=400).dataset("train")
    positive = train.kinds.reshape(-1, 50)[train.labels == 1]
    assert (positive == 0).mean() == pytest.approx(0.3, abs=0.02)


def test_label_noise_is_for_training_alone_and_leaves_the_evidence() -> None:
    for task in (Presence(), FourBags()):
        clean, noisy = opened(task, train_size=200), opened(task, train_size=200, label_noise=0.1)
        assert (clean.dataset("train").labels != noisy.dataset("train").labels).sum() == 20
        assert (clean.dataset("train").evidence == noisy.dataset("train").evidence).all()
        for split in ("val", "test"):
            assert digest(clean, split) == digest(noisy, split)


def share_of(data: BagDataModule, split: str, kind: int) -> list[float]:
    """Of the background instances in bags of each class the share of one kind."""
    found = data.dataset(split)
    label = np.repeat(found.labels, found.lengths)
    background = found.kinds >= data.task.letters
    return [float((found.kinds[background & (label == c)] == kind).mean()) for c in range(2)]


def test_correlated_background_goes_with_the_class_where_it_is_asked_to() -> None:
    confounder = CorrelatedBackground(strength=0.6, splits=["train", "val"])
    data = opened(Conjunction(), confounders=[confounder], train_size=1000, test_size=1000)
    # four kinds of background: 0.6 + 0.4 / 4 for the favourite, 0.4 / 4 for the others
    assert share_of(data, "train", 2) == pytest.approx([0.7, 0.1], abs=0.03)
    assert share_of(data, "train", 3) == pytest.approx([0.1, 0.7], abs=0.03)
    assert share_of(data, "test", 2) == pytest.approx([0.25, 0.25], abs=0.03)


def test_confounders_leave_labels_roles_and_evidence_alone() -> None:
    plain = opened(PresenceWithVeto())
    confounded = opened(PresenceWithVeto(), confounders=[CorrelatedBackground(1.0), Poison()])
    for split in plain.splits:
        one, other = plain.dataset(split), confounded.dataset(split)
        assert (one.labels == other.labels).all()
        assert (np.sort(one.roles) == np.sort(other.roles)).all()
        assert one.evidence.sum() == other.evidence.sum()


def test_poison_is_one_instance_of_its_own_kind_and_changes_sides() -> None:
    data = opened(Presence(), confounders=[Poison()], train_size=100, test_size=100)
    poison = GaussianClusters().num_kinds - 1
    for split, poisoned in (("train", 0), ("val", 0), ("test", 1)):
        found = data.dataset(split)
        for row in range(len(found)):
            kinds = found.kinds[found.offsets[row] : found.offsets[row + 1]]
            room = (kinds >= 1).any()
            assert (kinds == poison).sum() == int(found.labels[row] == poisoned and room)
    half = opened(Presence(), confounders=[Poison(0.5)], train_size=400).dataset("train")
    assert (half.kinds == poison).sum() == pytest.approx(100, abs=25)


def test_background_is_of_every_other_kind() -> None:
    train = opened(Conjunction(), train_size=2000).dataset("train")
    background = train.kinds[train.kinds >= 2]
    np.testing.assert_allclose(np.bincount(background)[2:] / len(background), 0.25, atol=0.02)


def test_a_batch_is_packed_and_padded_alike() -> None:
    train = opened(modality=Digits()).dataset("train")
    rows = [5, 0, 33]
    batch = train[rows]
    padded = batch.padded()
    assert batch.packed
    assert not padded.packed
    assert padded.inputs.shape == (3, int(train.lengths[rows].max()), 1, 8, 8)
    torch.testing.assert_close(padded.inputs[batch.valid], batch.inputs)
    assert not padded.inputs[~batch.valid].any()
    for place, row in enumerate(rows):
        inside = slice(train.offsets[row], train.offsets[row + 1])
        np.testing.assert_array_equal(padded.inputs[place, : train.lengths[row]], train.features[inside])
        np.testing.assert_array_equal(batch.evidence[place, : train.lengths[row]], train.evidence[inside])
        assert batch.evidence[place, train.lengths[row] :].isnan().all()
        alone = train[row]
        torch.testing.assert_close(alone.inputs, padded.inputs[place, : train.lengths[row]])
    assert batch.index.tolist() == rows
    assert batch.target.tolist() == train.labels[rows].tolist()
    assert batch.inputs.dtype == torch.float32
    assert not batch.special.any()
    assert len(train[[]]) == 0
    assert train[[]].inputs.shape == (0, 1, 8, 8)


def test_kinds_can_be_told_apart_by_their_features() -> None:
    for modality in (GaussianClusters(), ExpressionCounts(), MotifSequences(words=4), Digits()):
        data = opened(FourBags(), modality, train_size=600, test_size=300)
        train, test = data.dataset("train"), data.dataset("test")
        learned = LogisticRegression(C=0.1, max_iter=300).fit(train.features.reshape(len(train.kinds), -1), train.kinds)
        score = learned.score(test.features.reshape(len(test.kinds), -1), test.kinds)
        assert score > 3 / modality.num_kinds


def test_the_notes_name_task_modality_and_sizes() -> None:
    text = opened(Count(2), Digits((3, 5))).describe()
    assert "Count of 2, digits (A is 3, B is 5), seed 0." in text
    assert "train: 60 bags (negative 30, positive 30) of " in text
    assert "% of them evidence" in text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"train_size": 1}, "train_size of at least 2, not 1"),
        ({"test_size": 0}, "test_size of at least 1, not 0"),
        ({"witness_rate": 1.5}, "witness_rate from 0 to 1, not 1.5"),
        ({"label_noise": 0.6}, "label_noise from 0 to 0.5, not 0.6"),
        ({"max_instances": 0}, "max_instances of at least 1, not 0"),
        ({"batch_size": 0}, "batch_size of at least 1, not 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict, problem: str) -> None:
    with pytest.raises(InputError, match=f"BagDataModule needs .*{problem}"):
        BagDataModule(**arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"task": Count(5)}, "Count of 5 needs bags of at least 5 instances, but the size may be 4"),
        ({"task": Majority(), "size": FixedSize(2)}, "Majority needs bags of at least 3"),
        ({"task": Conjunction(), "modality": GaussianClusters(2)}, "needs 3 kinds .*2 that decide.* has 2"),
        ({"modality": GaussianClusters(2), "confounders": [Poison()]}, "needs 3 kinds .*1 for confounders.* has 2"),
        ({"max_instances": 5}, "A bag has 1[0-9] instances; max_instances must be at least that, not 5"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments: dict, problem: str) -> None:
    def prepare() -> None:
        data = BagDataModule(**arguments)
        data.setup()
        data.train_dataloader()

    with pytest.raises(InputError, match=problem):
        prepare()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: FixedSize(0), "FixedSize needs instances of at least 1, not 0"),
        (lambda: NormalSize(3, 1, least=4), "NormalSize needs"),
        (lambda: CorrelatedBackground(2.0), "strength from 0 to 1, not 2"),
        (lambda: CorrelatedBackground(splits=["dev"]), "knows no split 'dev'; the splits are train, val, test"),
        (lambda: Poison(-1.0), "share from 0 to 1, not -1"),
    ],
)
def test_pieces_refuse_what_they_cannot_do(make, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make()
