"""The price of leaked label information against closed forms, and what it does to weights that give the label away."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from lightning_attn.attention.softmax import attendable
from lightning_attn.mitigations import Compose, LeakagePenalty, RandomMixing, RandomPretraining
from lightning_attn.types import AttentionOutput, Batch, DataSchema
from tests.toys import VOCABULARY, toy_batch, toy_network

NETWORK = toy_network()


def penalty(classes: int = 2, multi_label: bool = False, seed: int = 0, strength: float = 2.0) -> LeakagePenalty:
    torch.manual_seed(seed)
    mitigation = LeakagePenalty(strength)
    mitigation.build(DataSchema(num_classes=classes, multi_label=multi_label, vocabulary_size=VOCABULARY))
    return mitigation


def weights(batch: Batch, seed: int = 0) -> Tensor:
    scores = torch.randn(batch.valid.shape, generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~attendable(batch), -torch.inf).softmax(dim=-1)


def output_of(attention: Tensor) -> AttentionOutput:
    nothing = torch.zeros(len(attention), 2)
    return AttentionOutput(nothing, attention, attention, attention, attention[..., None])


def told(mitigation: LeakagePenalty, classifier: nn.Module, attention: Tensor, batch: Batch) -> Tensor:
    logits = classifier(attention, attendable(batch)).detach()
    return logits.view(len(batch), mitigation.outcomes.columns, mitigation.outcomes.cells).softmax(dim=-1)


@pytest.mark.parametrize(("classes", "multi_label"), [(2, False), (3, False), (3, True)])
def test_the_loss_is_its_closed_form(classes: int, multi_label: bool) -> None:
    mitigation = penalty(classes, multi_label)
    batch = toy_batch(classes=classes, multi_label=multi_label)
    attention = weights(batch)
    with torch.no_grad():
        for parameter in mitigation.adversary.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # it has learned something that the other has not
    allowed = attendable(batch)
    said = told(mitigation, mitigation.adversary, attention, batch)
    known = told(mitigation, mitigation.reference, allowed / allowed.sum(dim=-1, keepdim=True), batch)
    expected = 0.0
    for row in range(len(batch)):
        for column in range(mitigation.outcomes.columns):
            label = int(batch.target[row, column]) if multi_label else int(batch.target[row])
            expected -= float(said[row, column, label].log() + known[row, column, label].log())
            expected += 2.0 * float(stats.entropy(known[row, column].numpy(), said[row, column].numpy()))
    count = len(batch) * mitigation.outcomes.columns
    loss = mitigation.auxiliary_loss(output_of(attention), batch, NETWORK)
    assert loss.item() == pytest.approx(expected / count, rel=1e-5)


def test_a_black_boxs_probabilities_are_shared_out() -> None:
    mitigation, batch = penalty(), toy_batch()
    attention = weights(batch)
    of_one = [batch.replace(target=torch.full_like(batch.target, label)) for label in range(2)]
    parts = [mitigation.auxiliary_loss(output_of(attention), each, NETWORK).item() for each in of_one]
    soft = batch.replace(target=torch.tensor([[0.25, 0.75]]).expand(len(batch), 2))
    found = mitigation.auxiliary_loss(output_of(attention), soft, NETWORK).item()
    assert found == pytest.approx(0.25 * parts[0] + 0.75 * parts[1], rel=1e-5)


def test_uniform_weights_cost_nothing_as_long_as_adversaries_are_equal() -> None:
    mitigation, batch = penalty(strength=1000.0), toy_batch()
    allowed = attendable(batch)
    uniform = (allowed / allowed.sum(dim=-1, keepdim=True)).requires_grad_()
    loss = mitigation.auxiliary_loss(output_of(uniform), batch, NETWORK)
    known = told(mitigation, mitigation.reference, uniform.detach(), batch)[:, 0]
    assert loss.item() == pytest.approx(-2 * float(known.gather(1, batch.target[:, None]).log().mean()), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, uniform)
    assert gradient.abs().max() < 1e-3


def test_the_price_is_the_scorers_and_the_learning_the_adversaries() -> None:
    batch = toy_batch()
    gradients = []
    for strength in (1.0, 3.0):
        mitigation = penalty(strength=strength)
        with torch.no_grad():
            mitigation.adversary.output[-1].bias.add_(torch.tensor([1.0, -1.0]))
        attention = weights(batch).requires_grad_()
        mitigation.auxiliary_loss(output_of(attention), batch, NETWORK).backward()
        assert all(parameter.requires_grad for parameter in mitigation.parameters())
        gradients.append((attention.grad, [parameter.grad for parameter in mitigation.parameters()]))
    (small, learning), (large, same) = gradients
    assert small.abs().max() > 0
    torch.testing.assert_close(large, 3 * small)
    for first, second in zip(learning, same, strict=True):
        torch.testing.assert_close(first, second)


def test_padding_changes_nothing() -> None:
    mitigation, batch = penalty(), toy_batch()
    wider = toy_batch(pad_to=20).replace(target=batch.target)
    attention = weights(batch)
    padded = torch.cat([attention, torch.zeros(len(batch), 20 - attention.shape[1])], dim=1)
    expected = mitigation.auxiliary_loss(output_of(attention), batch, NETWORK)
    torch.testing.assert_close(mitigation.auxiliary_loss(output_of(padded), wider, NETWORK), expected)


def test_scores_that_give_the_label_away_come_to_give_less_of_it_away() -> None:
    torch.manual_seed(0)
    count, length = 256, 6
    target = torch.arange(count) % 2
    valid = torch.ones(count, length, dtype=torch.bool)
    batch = Batch(torch.zeros(count, length, dtype=torch.long), valid, ~valid, target, torch.arange(count))
    # Class 1 looks at the last position: a gain in its score, which the price is to take back.
    gain = nn.Parameter(torch.tensor(2.0))
    noise = 0.5 * torch.randn(count, length)
    mitigation = penalty(strength=1.0)
    learning = torch.optim.Adam(mitigation.parameters(), 1e-2)
    scorer = torch.optim.Adam([gain], 1e-2)

    def step(optimizers: list[torch.optim.Optimizer]) -> None:
        scores = noise + gain * target[:, None] * (torch.arange(length) == length - 1)
        for optimizer in (learning, scorer):
            optimizer.zero_grad()
        mitigation.auxiliary_loss(output_of(scores.softmax(dim=-1)), batch, NETWORK).backward()
        for optimizer in optimizers:
            optimizer.step()

    for _ in range(100):
        step([learning])
    mitigation.adversary_bits.reset()
    step([learning])
    told_before = float(mitigation.metrics()["adversary_bits"].compute())
    assert told_before > 0.5, "the adversary reads the label off the weights"
    for _ in range(150):
        step([learning, scorer])
    mitigation.adversary_bits.reset()
    for _ in range(20):
        step([learning])
    assert float(mitigation.metrics()["adversary_bits"].compute()) < told_before / 2, "the scorer writes less of it"
    assert float(gain) < 1


def test_it_composes_with_mixing_and_rests_while_pretraining() -> None:
    mitigation = Compose([RandomMixing(0.5), penalty()])
    assert not mitigation.freezes
    rates = mitigation.trainable(NETWORK, 0)
    assert set(rates.values()) == {5.0}
    resting = Compose([RandomPretraining(1), penalty()])
    resting.trainable(NETWORK, 0)
    assert [type(part) for part in resting.active] == [RandomPretraining]


@pytest.mark.parametrize("arguments", [{"strength": 0.0}, {"strength": -1.0}, {"rate": 0.0}])
def test_a_price_of_nothing_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"needs a {next(iter(arguments))} above 0"):
        LeakagePenalty(**arguments)


def test_it_belongs_to_one_network() -> None:
    with pytest.raises(ValueError, match="belongs to a network already"):
        penalty().build(DataSchema(num_classes=2, vocabulary_size=VOCABULARY))
