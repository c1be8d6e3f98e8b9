"""Estimators of P(y | attention): what they learn, what they do not see, and how far they can be trusted."""

import math
import warnings

import numpy as np
import pytest
import torch

from lightning_attn.mitigations import (
    BagMaskClassifier,
    ConvolutionalMaskClassifier,
    Dirichlet,
    InstanceWeighting,
    RecurrentMaskClassifier,
    SetMaskClassifier,
    SummaryMaskClassifier,
    Uniform,
)
from lightning_attn.mitigations.reliability import CalibrationError, RawWeightMean
from lightning_attn.types import AttentionOutput, DataSchema
from tests.helpers.joint_masks import MASKS, P_Y_GIVEN_MASK, joint_sample, toy_mask_batch, weighting
from tests.helpers.toys import toy_batch

KINDS = (SummaryMaskClassifier, ConvolutionalMaskClassifier, RecurrentMaskClassifier, SetMaskClassifier)


@pytest.mark.parametrize("kind", KINDS)
def test_every_estimator_learns_what_the_mask_tells(kind) -> None:
    torch.manual_seed(0)
    _, batch, attention = joint_sample(1000)
    mitigation = weighting(classifier=kind())
    output = AttentionOutput(torch.zeros(1000, 2), attention, attention, attention, attention[..., None])
    optimiser = torch.optim.Adam(mitigation.parameters(), lr=3e-2)
    for _ in range(150):
        optimiser.zero_grad()
        mitigation.auxiliary_loss(output, batch, None).backward()
        optimiser.step()
    learned = mitigation._log_probability(MASKS, toy_mask_batch(), held_out=True).exp()[:, 0]
    torch.testing.assert_close(learned, P_Y_GIVEN_MASK, atol=0.08, rtol=0)


@pytest.mark.parametrize("kind", [*KINDS, BagMaskClassifier])
def test_padding_and_special_tokens_are_not_seen(kind) -> None:
    torch.manual_seed(0)
    batch = toy_batch([9, 4, 1, 6], seed=1)
    attention = Dirichlet(1.0).sample(torch.zeros(4, 9), batch)
    classifier = kind()
    classifier.make_layers(3)
    logits = classifier(attention, batch.inner)
    assert logits.shape == (4, 3)
    for row in range(4):
        length = int(batch.valid[row].sum())
        alone = classifier(attention[row : row + 1, :length], batch.inner[row : row + 1, :length])
        torch.testing.assert_close(alone[0], logits[row])
    # The same weights with a special token before them.
    shifted = torch.nn.functional.pad(attention, (1, 0)), torch.nn.functional.pad(batch.inner, (1, 0))
    torch.testing.assert_close(classifier(*shifted), logits)
    assert classifier(attention[:0], batch.inner[:0]).shape == (0, 3)


@pytest.mark.parametrize(("kind", "sees"), [(SummaryMaskClassifier, False), (ConvolutionalMaskClassifier, True)])
def test_patterns_of_neighbours_need_an_estimator_that_reads_in_order(kind, sees: bool) -> None:
    """The label is whether the two heaviest of 40 positions stand side by side: places and profile do not tell."""
    torch.manual_seed(0)
    target = torch.randint(0, 2, (600,))
    first = torch.randint(2, 36, (600,))
    gap = torch.where(target == 1, 1, 2)
    attention = torch.full((600, 40), 0.01).scatter(1, torch.stack([first, first + gap], dim=1), 0.31)
    allowed = torch.ones_like(attention, dtype=torch.bool)
    classifier = kind()
    classifier.make_layers(2)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(classifier(attention[:400], allowed[:400]), target[:400]).backward()
        optimiser.step()
    right = (classifier(attention[400:], allowed[400:]).argmax(dim=1) == target[400:]).float().mean().item()
    assert right > 0.95 if sees else right < 0.8


def test_statistics_are_those_of_the_weights() -> None:
    batch = toy_batch([10, 5])
    even = Uniform().sample(torch.zeros(2, 10), batch)
    found = SummaryMaskClassifier().statistics(even, batch.inner)
    places = np.linspace(0, 1, 10)
    assert found[0, :5].tolist() == pytest.approx([math.log(10) / 4, 0, 0.1, 0.5, places.std()], abs=1e-5)
    torch.testing.assert_close(found[:, 5:].sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_fold_starts_from_weights_of_its_own(kind) -> None:
    first, second = weighting(classifier=kind()).classifiers
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert pairs
    assert not any(torch.equal(one, other) for one, other in pairs)


def test_calibration_error_is_that_of_a_plain_loop_in_any_number_of_parts() -> None:
    generator = np.random.default_rng(0)
    p, came = generator.random(500), generator.random(500) < 0.4
    expected = 0.0
    for number in range(15):
        chosen = (p >= number / 15) & (p < (number + 1) / 15)
        if chosen.any():
            expected += chosen.mean() * abs(came[chosen].mean() - p[chosen].mean())
    metric = CalibrationError()
    for part in np.array_split(np.arange(500), 3):
        metric.update(torch.tensor(p[part]), torch.tensor(came[part]))
    assert metric.compute().item() == pytest.approx(expected, abs=1e-5)


def test_calibration_is_logged_of_the_held_out_estimator() -> None:
    which, batch, attention = joint_sample(1000)
    mitigation = weighting()
    mitigation._log_probability = lambda *_, **__: P_Y_GIVEN_MASK[which].log()[:, None]
    mitigation.weigh(attention, batch)
    assert mitigation.metrics()["mask_classifier_calibration"].compute() < 0.01
    mitigation._log_probability = lambda *_, **__: torch.tensor([0.9, 0.1]).log().expand(1000, 1, 2)
    mitigation.metrics()["mask_classifier_calibration"].reset()
    mitigation.weigh(attention, batch)
    share = batch.target.float().mean().item()
    assert mitigation.metrics()["mask_classifier_calibration"].compute().item() == pytest.approx(share - 0.1, abs=1e-3)


def test_failing_positivity_is_warned_about() -> None:
    # Two masks, each with one label only: of four pairs of mask and label, two never come.
    target = torch.arange(200) % 2
    batch = toy_batch(lengths=[2] * 200).replace(target=target)
    attention = torch.eye(2)[target]
    mitigation = InstanceWeighting(warmup_steps=0)
    mitigation.build(DataSchema(num_classes=2, vocabulary_size=30))
    mitigation._log_probability = lambda *_, **__: torch.eye(2)[target].clamp(1e-6, 1).log()[:, None]
    mitigation.weigh(attention, batch)
    with pytest.warns(UserWarning, match=r"Positivity fails: .* have a mean of 0.50"):
        mitigation.metrics()["raw_weight_mean"].compute()


def test_independent_masks_do_not_warn() -> None:
    metric = RawWeightMean()
    metric.update(torch.ones(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric.compute() == 1


def test_during_the_warm_up_positivity_is_not_judged() -> None:
    _, batch, attention = joint_sample(100)
    mitigation = weighting(warmup_steps=1)
    mitigation.weigh(attention, batch)
    assert not mitigation.metrics()["raw_weight_mean"].update_called
    mitigation.weigh(attention, batch)
    assert mitigation.metrics()["raw_weight_mean"].update_called


def test_an_even_width_is_refused() -> None:
    with pytest.raises(ValueError, match="odd width, got 4"):
        ConvolutionalMaskClassifier(width=4)
