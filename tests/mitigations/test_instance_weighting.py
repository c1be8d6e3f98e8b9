"""Instance weighting against closed forms: under exact weights, label and attention are independent."""

import warnings

import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor

from lightning_attn.mitigations import InstanceWeighting, MaskClassifier, SetMaskClassifier
from lightning_attn.mitigations.mask_classifier import mask_features
from lightning_attn.mitigations.reliability import EffectiveSampleSize
from lightning_attn.types import AttentionOutput, Batch, DataSchema
from tests.helpers.joint_masks import MASKS, P_MASK, P_Y_GIVEN_MASK, joint_sample, toy_mask_batch, weighting
from tests.helpers.toys import toy_batch


class Exact(MaskClassifier):
    """Knows P(y | mask)."""

    def make_layers(self, outputs: int) -> None:
        assert outputs == 2

    def forward(self, attention: Tensor, allowed: Tensor) -> Tensor:
        which = (attention[:, None] - MASKS).abs().sum(dim=-1).argmin(dim=-1)
        return P_Y_GIVEN_MASK[which].log()


def test_weighted_label_and_mask_are_independent_with_both_marginals_kept() -> None:
    which, batch, attention = joint_sample(1000)
    mitigation = weighting(classifier=Exact(), momentum=0.0)
    for _ in range(200):  # the label counts start from one imagined example each
        weight = mitigation.weigh(attention, batch)
    joint = torch.zeros(3, 2).index_put_((which, batch.target), weight, accumulate=True) / weight.sum()
    label = torch.bincount(batch.target) / len(batch)
    torch.testing.assert_close(joint, P_MASK[:, None] * label, atol=1e-3, rtol=0)
    torch.testing.assert_close(joint.sum(dim=0), label, atol=1e-3, rtol=0)
    torch.testing.assert_close(joint.sum(dim=1), P_MASK, atol=1e-3, rtol=0)
    assert weight.mean().item() == pytest.approx(1, abs=1e-3)


def test_weights_equal_the_closed_form_and_are_clipped() -> None:
    which, batch, attention = joint_sample(1000)
    label = torch.bincount(batch.target) / len(batch)
    for floor in (1e-6, 0.3):
        mitigation = weighting(classifier=Exact(), momentum=0.0, floor=floor)
        for _ in range(200):
            weight = mitigation.weigh(attention, batch)
        raw = label[batch.target] / P_Y_GIVEN_MASK[which, batch.target].clamp_min(floor)
        means = torch.stack([raw[batch.target == y].mean() for y in range(2)])
        torch.testing.assert_close(weight, raw / means[batch.target], atol=2e-3, rtol=2e-3)


def test_the_logged_figures_are_those_of_the_weights() -> None:
    which, batch, attention = joint_sample(1000)
    mitigation = weighting(classifier=Exact())
    weight = mitigation.weigh(attention, batch)
    logged = {name: metric.compute().item() for name, metric in mitigation.metrics().items()}
    expected = weight.sum() ** 2 / weight.square().sum() / len(batch)
    assert logged["effective_sample_size"] == pytest.approx(expected.item(), rel=1e-5)
    assert logged["weight_max"] == pytest.approx(weight.max().item())
    assert logged["mask_classifier_nll"] == pytest.approx(log_loss(batch.target, P_Y_GIVEN_MASK[which]), rel=1e-5)


def test_every_weight_is_one_during_the_warm_up() -> None:
    _, batch, attention = joint_sample(100)
    mitigation = weighting(classifier=Exact(), warmup_steps=2)
    assert (mitigation.weigh(attention, batch) == 1).all()
    assert (mitigation.weigh(attention, batch) == 1).all()
    assert not (mitigation.weigh(attention, batch) == 1).all()


def test_weights_and_attention_carry_no_gradient_to_each_other() -> None:
    batch = toy_batch()
    mitigation = weighting()
    scores = torch.randn(batch.valid.shape, requires_grad=True)
    attention = scores.masked_fill(~batch.valid, -1e9).softmax(dim=-1)
    assert not mitigation.weigh(attention, batch).requires_grad
    output = AttentionOutput(torch.zeros(4, 2), attention, attention, scores, torch.zeros(4, 12, 1))
    mitigation.auxiliary_loss(output, batch, None).backward()
    assert scores.grad is None
    assert all(parameter.grad is not None for parameter in mitigation.classifiers.parameters())


def test_an_example_is_weighted_by_the_estimator_that_is_not_trained_on_it() -> None:
    batch = toy_batch(lengths=[5] * 40)
    attention = batch.valid / batch.valid.sum(dim=-1, keepdim=True)
    mitigation = weighting()
    fold = mitigation.fold(batch.index)
    with torch.no_grad():  # estimator 0 now believes firmly in class 1
        mitigation.classifiers[0].output[-1].bias += torch.tensor([-5.0, 5.0])
    probability = mitigation._log_probability(attention, batch, held_out=True).exp()[:, 0, 1]
    assert (probability[fold == 1] > 0.99).all()
    assert (probability[fold == 0] < 0.99).all()
    own = batch.select(fold == 0)
    output = AttentionOutput(*[attention[fold == 0]] * 5)
    mitigation.auxiliary_loss(output, own, None).backward()
    assert mitigation.classifiers[0].output[-1].bias.grad.abs().sum() > 0
    assert mitigation.classifiers[1].output[-1].bias.grad.abs().sum() == 0


def test_folds_are_balanced_and_do_not_go_with_parity() -> None:
    mitigation = weighting()
    index = torch.arange(20_000)
    fold = mitigation.fold(index)
    assert set(fold.tolist()) == {0, 1}
    for half in (index % 2 == 0, index % 2 == 1):
        assert fold[half].float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert not torch.equal(fold, InstanceWeighting(seed=1).fold(index))


def test_the_estimator_learns_what_the_mask_tells() -> None:
    torch.manual_seed(0)
    _, batch, attention = joint_sample(1000)
    mitigation = weighting()
    output = AttentionOutput(torch.zeros(1000, 2), attention, attention, attention, attention[..., None])
    optimiser = torch.optim.Adam(mitigation.parameters(), lr=1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        mitigation.auxiliary_loss(output, batch, None).backward()
        optimiser.step()
    learned = mitigation._log_probability(MASKS, toy_mask_batch(), held_out=True).exp()[:, 0]
    torch.testing.assert_close(learned, P_Y_GIVEN_MASK, atol=0.06, rtol=0)


def test_labels_of_a_multi_label_task_are_weighted_one_by_one() -> None:
    batch = toy_batch(classes=3, multi_label=True)
    mitigation = InstanceWeighting(warmup_steps=0)
    mitigation.build(DataSchema(num_classes=3, multi_label=True, vocabulary_size=30))
    attention = batch.valid / batch.valid.sum(dim=-1, keepdim=True)
    assert mitigation.weigh(attention, batch).shape == (4, 3)


def test_state_survives_a_checkpoint() -> None:
    _, batch, attention = joint_sample(100)
    first = weighting()
    for _ in range(5):
        first.weigh(attention, batch)
    second = weighting()
    second.load_state_dict(first.state_dict())
    assert second.steps == 5
    assert torch.equal(first.weigh(attention, batch), second.weigh(attention, batch))


def test_mask_features_hold_nothing_but_the_mask_and_ignore_padding() -> None:
    batch = toy_batch(lengths=[4, 2], pad_to=6)
    uniform = batch.inner / batch.inner.sum(dim=-1, keepdim=True)
    features = mask_features(uniform, batch.inner)
    torch.testing.assert_close(features[0, :4, 0], torch.ones(4))
    torch.testing.assert_close(features[0, :4, 1], torch.zeros(4))
    torch.testing.assert_close(features[0, :4, 2], torch.tensor([0, 1 / 3, 2 / 3, 1]))
    assert (features[~batch.inner] == 0).all()
    torch.manual_seed(0)
    classifier = SetMaskClassifier()
    classifier.make_layers(2)
    alone = classifier(uniform[1:, :2], batch.inner[1:, :2])
    torch.testing.assert_close(alone[0], classifier(uniform, batch.inner)[1])


def test_weight_on_special_tokens_is_seen() -> None:
    batch = toy_batch(lengths=[6] * 200, special=True)
    batch = batch.replace(target=torch.arange(200) % 2)
    place = torch.where(batch.target == 1, 0, 5)  # the label decides which special token is attended
    attention = torch.nn.functional.one_hot(place, 6).float() * 0.9 + batch.inner * 0.1 / 4
    torch.manual_seed(0)
    mitigation = weighting()
    output = AttentionOutput(torch.zeros(200, 2), attention, attention, attention, attention[..., None])
    optimiser = torch.optim.Adam(mitigation.parameters(), lr=1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        loss = mitigation.auxiliary_loss(output, batch, None)
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_few_effective_examples_are_warned_about() -> None:
    metric = EffectiveSampleSize()
    metric.update(torch.tensor([10.0] + [0.001] * 99))
    with pytest.warns(UserWarning, match="rests on 1% of the examples"):
        metric.compute()
    metric.reset()
    metric.update(torch.ones(7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metric.compute() == 1


@pytest.mark.parametrize("wrong", [{"floor": 0.0}, {"floor": 1.0}, {"momentum": 1.0}])
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"floor must be|momentum must be"):
        InstanceWeighting(**wrong)


def soft(batch: Batch, classes: int = 2) -> Batch:
    """The same labels as probabilities of 0 and 1."""
    return batch.replace(target=torch.nn.functional.one_hot(batch.target, classes).float())


def test_labels_as_probabilities_weigh_and_learn_as_labels() -> None:
    _, batch, attention = joint_sample(100)
    hard, as_soft = weighting(classifier=Exact(), momentum=0.5), weighting(classifier=Exact(), momentum=0.5)
    for _ in range(3):
        weight, cells = hard.weigh(attention, batch), as_soft.weigh(attention, soft(batch))
    assert cells.shape == (100, 2)
    torch.testing.assert_close(cells.gather(1, batch.target[:, None]).squeeze(1), weight)
    one, other = ({name: metric.compute() for name, metric in m.metrics().items()} for m in (hard, as_soft))
    torch.testing.assert_close(one, other)
    torch.manual_seed(0)
    learning = weighting()
    output = AttentionOutput(torch.zeros(100, 2), attention, attention, attention, attention[..., None])
    losses = [learning.auxiliary_loss(output, kind, None) for kind in (batch, soft(batch))]
    torch.testing.assert_close(*losses)


def test_classes_drawn_from_probabilities_are_independent_of_the_mask_under_the_weights() -> None:
    # What the black box says differs between examples with the same mask; its mean given the mask is P(y | mask).
    which, batch, attention = joint_sample(1000)
    swing = torch.where(torch.arange(1000) % 2 == 0, 0.09, -0.09)
    said = P_Y_GIVEN_MASK[which, 0]
    for mask in range(3):  # as many up as down
        rows = (which == mask).nonzero().squeeze(1)
        said[rows] = said[rows] + swing[torch.arange(len(rows))] * (1 if len(rows) % 2 == 0 else 0)
    batch = batch.replace(target=torch.stack([said, 1 - said], dim=1))
    mitigation = weighting(classifier=Exact(), momentum=0.0)
    for _ in range(200):
        weight = mitigation.weigh(attention, batch)
    joint = torch.zeros(3, 2).index_add_(0, which, weight * batch.target) / 1000
    label = batch.target.mean(dim=0)
    torch.testing.assert_close(joint, P_MASK[:, None] * label, atol=2e-3, rtol=0)
    assert (weight * batch.target).sum().item() == pytest.approx(1000, rel=1e-3)
