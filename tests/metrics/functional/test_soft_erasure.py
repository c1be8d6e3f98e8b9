from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_attn.metrics import Settings, measure
from lightning_attn.metrics.functional import soft_comprehensiveness, soft_sufficiency
from lightning_attn.metrics.functional.soft_erasure import softly_kept, unit_scores
from lightning_attn.metrics.measurement import _SOFT_SEED
from lightning_attn.ops.randomness import uniform
from tests.helpers.toys import alone, toy_batch, toy_network

NAMES = ["faithfulness/soft_comprehensiveness", "faithfulness/soft_sufficiency"]


def published(full: float, reduced: float, empty: float, kind: str) -> float:
    """The formulas as the code of Zhao and Aletras writes them, less what keeps it from dividing by 0."""
    suff_y_zero = 1 - np.maximum(0, full - empty)
    if kind == "sufficiency":
        value = (1 - np.maximum(0, full - reduced) - suff_y_zero) / (1 - suff_y_zero)
    else:
        value = np.maximum(0, full - reduced) / (1 - suff_y_zero)
    return float(np.clip(value, 0, 1))


def test_a_case_worked_by_hand():
    full, empty = torch.tensor([0.9, 0.9]), torch.tensor([0.5, 0.5])
    draws = torch.tensor([[0.8, 0.6], [0.95, 0.3]])
    # Drops .1 and .3 of at most .4; none, and .6, which is cut to all of it.
    torch.testing.assert_close(soft_comprehensiveness(full, draws, empty), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(soft_sufficiency(full, draws[:, :1], empty), torch.tensor([0.75, 1.0]))
    for kind, function in (("sufficiency", soft_sufficiency), ("comprehensiveness", soft_comprehensiveness)):
        for row, column in np.ndindex(2, 2):
            theirs = published(0.9, float(draws[row, column]), 0.5, kind)
            ours = function(full[row : row + 1], draws[row : row + 1, column : column + 1], empty[row : row + 1])
            assert float(ours) == pytest.approx(theirs, abs=1e-6)


def test_undefined_where_nothing_is_as_good_as_the_text():
    for function in (soft_sufficiency, soft_comprehensiveness):
        found = function(torch.tensor([0.6, 0.6]), torch.tensor([[0.5], [0.5]]), torch.tensor([0.6, 0.7]))
        assert found.isnan().all()


def test_scores_become_probabilities_within_each_text():
    inner = torch.tensor([[False, True, True, True], [True, True, False, False]])
    scores = torch.tensor([[9.0, -1.0, 0.0, 1.0], [0.3, 0.3, 0.0, 0.0]])
    found = unit_scores(scores, inner)
    assert found[0].tolist() == [0.0, 0.0, 0.5, 1.0]
    assert found[1, :2].isnan().all()


def test_as_many_numbers_are_kept_as_the_shares_say_whatever_the_padding():
    batch = toy_batch(lengths=(40, 30), pad_to=50)
    shares = torch.linspace(0, 1, 50).expand(2, 50)
    kept = softly_kept(shares, batch, 400, seed=3)
    torch.testing.assert_close(kept.float().mean(-1), shares, atol=0.1, rtol=0)
    assert not kept[:, 0].any()
    assert kept[:, -1].all()
    shorter = softly_kept(shares[:1, :40], batch.select(torch.tensor([0])).shortened(40), 400, seed=3)
    assert torch.equal(shorter, kept[:1, :40])
    assert not torch.equal(kept[0], softly_kept(shares, batch, 400, seed=4)[0])


def test_equals_a_loop_over_draws_positions_and_numbers():
    batch, network = toy_batch(lengths=(5, 7), special=True), toy_network(seed=8)
    settings = Settings(soft_draws=3, seed=2)
    found, output = measure(network, batch, NAMES, settings)
    for row in range(2):
        text = alone(batch, row)
        weights, inner = output.attention[row, : text.valid.shape[1]], text.inner[0]
        embeddings = network.embed(text).detach()

        def p(factor, text=text, embeddings=embeddings):
            with torch.no_grad():
                return network(text, embeddings=embeddings * factor).logits.softmax(-1)[0]

        everything = torch.ones_like(embeddings)
        full = p(everything)
        c = int(full.argmax())
        low, high = float(weights[inner].min()), float(weights[inner].max())
        empty = float(p(everything * ~inner[None, :, None])[c])
        values: dict[str, list[float]] = {"comprehensiveness": [], "sufficiency": []}
        shape = embeddings[0].shape
        for draw in range(3):
            numbers = uniform(text.index, embeddings[0].numel(), _SOFT_SEED + 2 * 3 + draw)[0].view(shape)
            keep, drop = everything.clone(), everything.clone()
            for place in inner.nonzero().squeeze(1).tolist():
                share = (float(weights[place]) - low) / (high - low)
                for number in range(embeddings.shape[2]):
                    stays = float(numbers[place, number]) < share
                    keep[0, place, number], drop[0, place, number] = float(stays), float(not stays)
            for kind, factor in (("sufficiency", keep), ("comprehensiveness", drop)):
                values[kind].append(published(float(full[c]), float(p(factor)[c]), empty, kind))
        for kind, several in values.items():
            assert float(found[f"faithfulness/soft_{kind}"][row]) == pytest.approx(np.mean(several), abs=1e-5)


def test_scores_of_0_and_1_take_and_leave_whole_embeddings():
    batch, network = toy_batch(lengths=(6, 9)), toy_network(seed=5)
    scores = (torch.arange(9) % 3 == 0).float().expand(2, 9) * batch.inner
    found, output = measure(network, batch, NAMES, Settings(soft_draws=1), scores)
    with torch.no_grad():
        embeddings, c = network.embed(batch), output.logits.argmax(-1)

        def p(keep):
            return network(batch, embeddings=embeddings * keep[..., None]).logits.softmax(-1).gather(1, c[:, None])

        full, empty = p(batch.valid)[:, 0], p(batch.valid & False)[:, 0]
        for name, function, keep in zip(
            NAMES, (soft_comprehensiveness, soft_sufficiency), (scores < 0.5, scores > 0.5), strict=True
        ):
            torch.testing.assert_close(found[name], function(full, p(keep), empty), equal_nan=True)
