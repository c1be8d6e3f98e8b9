"""The price of leaked label information against scikit-learn, and what it does to weights that give the label away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from lightning_attn.mitigations import Compose, LeakagePenalty, RandomMixing, RandomPretraining
from lightning_attn.mitigations.leakage_penalty import MaskDescription, length_description
from lightning_attn.ops.softmax import attendable
from lightning_attn.types import AttentionOutput, Batch, DataSchema
from tests.helpers.toys import VOCABULARY, toy_batch, toy_network

NETWORK = toy_network()


def penalty(classes: int = 2, multi_label: bool = False, **arguments: float) -> LeakagePenalty:
    mitigation = LeakagePenalty(**{"memory": 50, "margin": 1.0, **arguments})  # type: ignore[arg-type]
    mitigation.build(DataSchema(num_classes=classes, multi_label=multi_label, vocabulary_size=VOCABULARY))
    return mitigation


def texts(count: int, longest: int = 9, seed: int = 0, classes: int = 2, multi_label: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (count, 1), generator=generator)
    valid = torch.arange(longest) < lengths
    shape = (count, classes) if multi_label else (count,)
    target = torch.randint(2 if multi_label else classes, shape, generator=generator)
    target = target.float() if multi_label else target
    return Batch(torch.zeros_like(valid, dtype=torch.long), valid, valid & False, target, torch.arange(count))


def weights(batch: Batch, seed: int = 0, told: float = 0.0) -> Tensor:
    """Random weights; ``told`` shifts those of class 1 to the end."""
    scores = torch.randn(batch.valid.shape, generator=torch.Generator().manual_seed(seed))
    if told:
        last = torch.arange(batch.valid.shape[1]) == batch.valid.sum(dim=1, keepdim=True) - 1
        scores = scores + told * batch.target.float()[:, None] * last
    return scores.masked_fill(~attendable(batch), -torch.inf).softmax(dim=-1)


def output_of(attention: Tensor) -> AttentionOutput:
    return AttentionOutput(torch.zeros(len(attention), 2), attention, attention, attention, attention[..., None])


def pay(mitigation: LeakagePenalty, attention: Tensor, batch: Batch) -> Tensor:
    return mitigation.auxiliary_loss(output_of(attention), batch, NETWORK)


@pytest.mark.parametrize(("classes", "multi_label"), [(2, False), (3, False), (3, True)])
def test_the_price_is_that_of_two_ridge_regressions(classes: int, multi_label: bool) -> None:
    mitigation = penalty(classes, multi_label, strength=2.0, margin=0.5)
    past = [texts(200, seed=seed, classes=classes, multi_label=multi_label) for seed in range(4)]
    seen = []
    for age, batch in zip((3, 2, 1, 0), past, strict=True):
        attention = weights(batch, seed=age)
        attention = attention * (1 + batch.target.reshape(len(batch), -1)[:, :1] * torch.arange(9) * attendable(batch))
        attention = attention / attention.sum(dim=1, keepdim=True)
        pay(mitigation, attention, batch)
        outcome = mitigation.outcomes.probabilities(batch).flatten(1).double().numpy()
        seen.append((described(attention, batch), outcome, np.full(len(batch), (1 - 1 / 50) ** age)))
    fading = np.concatenate([weight for _, _, weight in seen])
    frequency = np.average(np.concatenate([outcome for _, outcome, _ in seen]), axis=0, weights=fading)
    # all of it as it differs within its batch
    columns = np.concatenate([part - part.mean(axis=0) for part, _, _ in seen])
    outcome = np.concatenate([part - part.mean(axis=0) for _, part, _ in seen])
    mass = sum(weight[0] * (len(weight) - 1) for _, _, weight in seen)
    effective = mass**2 / sum(weight[0] ** 2 * (len(weight) - 1) for _, _, weight in seen)
    batch = texts(100, seed=9, classes=classes, multi_label=multi_label)
    attention = weights(batch, seed=9)
    now = described(attention, batch)
    now = now - now.mean(axis=0)

    def regression(size: int) -> tuple[np.ndarray, np.ndarray]:
        deviation = np.sqrt((fading[:, None] * columns[:, :size] ** 2).sum(axis=0) / mass)
        deviation[deviation <= 1e-5] = np.inf
        known = columns[:, :size] / deviation
        model = Ridge(alpha=size / effective * mass, fit_intercept=False).fit(known, outcome, sample_weight=fading)
        shared = (known * fading[:, None]).T @ outcome / mass
        explained = (shared * model.coef_.T).sum(axis=0) / (frequency * (1 - frequency))
        return model.predict(now[:, :size] / deviation), explained

    (both, explained), (length, by_length) = regression(columns.shape[1]), regression(2)
    chance = (columns.shape[1] - 2) / effective
    beyond = np.clip(1 - 0.5 * chance / (explained - by_length), 0, None)
    assert (beyond > 0).any()
    difference = (both - length) * beyond
    expected = 2.0 * (np.sqrt(1 + difference**2 / frequency) - 1).sum(axis=1).mean() / mitigation.outcomes.columns
    assert pay(mitigation, attention, batch).item() == pytest.approx(expected, rel=2e-3, abs=1e-6)


def described(attention: Tensor, batch: Batch) -> np.ndarray:
    allowed = attendable(batch)
    both = torch.cat([length_description(allowed), MaskDescription()(attention, allowed)], dim=-1)
    return both.double().numpy()


def test_what_the_weights_cannot_help_telling_is_free() -> None:
    """Long texts are of class 1, and the weights are uniform: they tell the length, and nothing else."""
    mitigation = penalty(strength=100.0)
    for seed in range(6):
        batch = texts(200, seed=seed)
        batch = batch.replace(target=(batch.valid.sum(dim=1) > 5).long())
        allowed = attendable(batch)
        price = pay(mitigation, allowed / allowed.sum(dim=1, keepdim=True), batch)
    assert price.item() == pytest.approx(0, abs=1e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_what_chance_explains_is_free(seed: int) -> None:
    mitigation = penalty(strength=1.0, margin=3.0)
    for step in range(20):
        batch = texts(32, seed=100 * seed + step)
        price = pay(mitigation, weights(batch, seed=100 * seed + 50 + step), batch)
    assert price.item() == 0


def test_weights_that_change_from_batch_to_batch_tell_nothing() -> None:
    """Whole batches of one kind of weights and mostly one label: what learning and chance do, not the scorer."""
    mitigation = penalty(strength=1.0, margin=0.0)
    for step in range(20):
        batch = texts(64, seed=step)
        batch = batch.replace(target=((torch.arange(64) % 10 < 9) == bool(step % 2)).long())
        sharp = weights(batch, seed=step).pow(1 + 3 * (step % 2))
        price = pay(mitigation, sharp / sharp.sum(dim=1, keepdim=True), batch)
    assert price.item() < 0.05


def test_weights_that_tell_cost_the_more_the_more_they_tell() -> None:
    prices = []
    for told in (0.0, 1.0, 2.0, 6.0):
        mitigation = penalty(strength=1.0)
        for step in range(20):
            batch = texts(64, seed=step)
            price = pay(mitigation, weights(batch, seed=50 + step, told=told), batch)
        prices.append(price.item())
    assert prices == sorted(prices)
    assert prices[0] < 0.02
    assert prices[-1] > 0.2


def test_the_price_is_felt_by_the_weights_in_proportion_to_the_strength() -> None:
    gradients = []
    for strength in (1.0, 3.0):
        mitigation = penalty(strength=strength)
        for step in range(10):
            batch = texts(64, seed=step)
            pay(mitigation, weights(batch, seed=step, told=3.0), batch)
        attention = weights(batch, told=3.0).requires_grad_()
        pay(mitigation, attention, batch).backward()
        gradients.append(attention.grad)
    assert gradients[0] is not None
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], 3 * gradients[0])


def test_a_black_boxs_probabilities_are_remembered_as_such() -> None:
    batch = texts(64)
    attention = weights(batch)
    of_one = []
    for label in (0, 1):
        mitigation = penalty()
        pay(mitigation, attention, batch.replace(target=torch.full_like(batch.target, label)))
        of_one.append(mitigation.counts.clone())
    soft = penalty()
    pay(soft, attention, batch.replace(target=torch.tensor([[0.25, 0.75]]).expand(len(batch), 2)))
    torch.testing.assert_close(soft.counts, 0.25 * of_one[0] + 0.75 * of_one[1])


@pytest.mark.parametrize("places", [True, False])
def test_padding_changes_nothing_and_bags_have_no_places(places: bool) -> None:
    batch = toy_batch()
    attention, allowed = weights(batch), attendable(batch)
    description = MaskDescription(places)
    found = description(attention, allowed)
    assert found.shape == (len(batch), description.size)
    more = 20 - attention.shape[1]
    wider = [torch.nn.functional.pad(part, (0, more)) for part in (attention, allowed)]
    torch.testing.assert_close(description(*wider), found)
    torch.testing.assert_close(length_description(wider[1]), length_description(allowed))
    row = int(allowed.sum(dim=1).argmax())
    order = allowed[row].nonzero().squeeze(1)
    turned = attention.clone()
    turned[row, order] = attention[row, order.flip(0)]
    same = torch.allclose(description(turned, allowed), found, atol=1e-6)
    assert same is not places


def test_scores_that_give_the_label_away_come_to_give_none_of_it_away() -> None:
    gain = nn.Parameter(torch.tensor(3.0))
    mitigation = penalty(strength=1.0, memory=20)
    scorer = torch.optim.Adam([gain], 2e-2)

    def step(number: int, learn: bool) -> None:
        batch = texts(64, longest=6, seed=number)
        scores = torch.randn(64, 6, generator=torch.Generator().manual_seed(1000 + number))
        last = torch.arange(6) == batch.valid.sum(dim=1, keepdim=True) - 1
        scores = scores + gain * batch.target[:, None] * last
        price = pay(mitigation, scores.masked_fill(~attendable(batch), -torch.inf).softmax(dim=-1), batch)
        if learn:
            scorer.zero_grad()
            price.backward()
            scorer.step()

    for number in range(20):
        step(number, learn=False)
    mitigation.adversary_bits.reset()
    step(20, learn=False)
    assert float(mitigation.metrics()["adversary_bits"].compute()) > 0.1, "the adversary reads the label"
    for number in range(300):
        step(number, learn=True)
    assert abs(float(gain)) < 0.5


def test_its_memory_is_in_the_checkpoint() -> None:
    first, second = penalty(), penalty()
    for step in range(5):
        batch = texts(64, seed=step)
        pay(first, weights(batch, seed=step, told=4.0), batch)
    second.load_state_dict(first.state_dict())
    attention = weights(batch, told=4.0)
    expected = pay(first, attention, batch)
    assert expected.item() > 0
    assert torch.equal(pay(second, attention, batch), expected)


def test_it_composes_with_mixing_and_rests_while_pretraining() -> None:
    mitigation = Compose([RandomMixing(0.5), penalty()])
    assert not mitigation.freezes
    resting = Compose([RandomPretraining(1), penalty()])
    resting.lr_scales(NETWORK, 0)
    assert [type(part) for part in resting.active] == [RandomPretraining]


@pytest.mark.parametrize("arguments", [{"strength": 0.0}, {"strength": -1.0}, {"memory": 1}, {"margin": -1.0}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"needs a {next(iter(arguments))}"):
        LeakagePenalty(**arguments)  # type: ignore[arg-type]


def test_it_belongs_to_one_network() -> None:
    with pytest.raises(ValueError, match="belongs to a network already"):
        penalty().build(DataSchema(num_classes=2, vocabulary_size=VOCABULARY))
