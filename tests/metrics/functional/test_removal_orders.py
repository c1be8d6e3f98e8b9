from __future__ import annotations

import itertools

import pytest
import torch

from lightning_attn.encoders import TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.metrics import PRESETS, Settings, measure
from lightning_attn.metrics.functional import aopc_bounds, naopc, srg
from lightning_attn.perturbation.perturbations import Replace
from tests.helpers.toys import alone, toy_batch, toy_network

NAMES = ["faithfulness/naopc", "faithfulness/srg"]


def drop_of(network, text, removed, target, full):
    """Drop of the explained class without some of the tokens of a single text, read by itself."""
    gone = torch.zeros_like(text.valid)
    gone[0, list(removed)] = True
    left = text.valid & ~gone
    part = text.replace(inputs=text.inputs[left][None], valid=left[left][None], special=text.special[left][None])
    with torch.no_grad():
        return float(full - network(part).logits.softmax(-1)[0, target])


def by_permutations(network, batch, row):
    """The definition of Edin et al.: means over the removals of 1 to n tokens, in every order; and of the attention."""
    text = alone(batch, row)
    with torch.no_grad():
        output = network(text)
    p = output.logits.softmax(-1)[0]
    target, places = int(p.argmax()), text.inner[0].nonzero().squeeze(1).tolist()
    sets = {
        frozenset(removed): drop_of(network, text, removed, target, p[target])
        for count in range(1, len(places) + 1)
        for removed in itertools.combinations(places, count)
    }

    def aopc(order):
        return sum(sets[frozenset(order[: k + 1])] for k in range(len(order))) / len(order)

    every = [aopc(order) for order in itertools.permutations(places)]
    own = sorted(places, key=lambda place: (-float(output.attention[0, place]), place))
    return aopc(own), min(every), max(every), sets[frozenset(places)]


def test_a_case_worked_by_hand():
    # Without a: .9 -> .5, without b: .9 -> .8, without both .9 -> .1; without c nothing changes, whatever else goes.
    # Means over the removal of one and two tokens: a, b .6; b, a .45; a, c .4; c, a .2; b, c .1; c, b .05.
    means = torch.tensor([0.6, 0.45, 0.4, 0.2, 0.1, 0.05])
    found = naopc(means, torch.full((6,), 0.05), torch.full((6,), 0.6))
    torch.testing.assert_close(found, torch.tensor([1, 8 / 11, 7 / 11, 3 / 11, 1 / 11, 0]))
    # The removal of all three, .8 in every order, changes AOPC and its bounds, and not where one lies between them.
    with_all = (2 * means + 0.8) / 3
    torch.testing.assert_close(naopc(with_all, with_all.amin().expand(6), with_all.amax().expand(6)), found)
    # a, b, c: .5 and .1 are left; c, b, a: .9 and .8
    torch.testing.assert_close(srg(torch.tensor([[0.5, 0.1]]), torch.tensor([[0.9, 0.8]])), torch.tensor([0.55]))


def test_what_the_search_missed_is_a_bound_and_equal_orders_have_no_place():
    assert naopc(torch.tensor([0.7, 0.1]), torch.tensor([0.2, 0.2]), torch.tensor([0.6, 0.6])).tolist() == [1, 0]
    assert naopc(torch.tensor([0.3]), torch.tensor([0.3]), torch.tensor([0.3])).isnan().all()


def test_equals_every_permutation_as_published():
    batch = toy_batch(lengths=(7, 4, 8, 5), special=True, classes=3)
    network = toy_network(seed=3, classes=3)
    found, _ = measure(network, batch, NAMES)
    with torch.no_grad():
        full = network(batch).logits.softmax(-1)
    lower, upper = aopc_bounds(network, batch, full.argmax(-1), full)
    for row in range(4):
        own, least, most, everything = by_permutations(network, batch, row)
        n = int(batch.inner[row].sum())
        # With the removal of all n tokens, as published, the bounds are other ones, and the place between them is not.
        for ours, theirs in ((lower, least), (upper, most)):
            assert (float(ours[row]) * (n - 1) + everything) / n == pytest.approx(theirs, abs=1e-6)
        assert float(found["faithfulness/naopc"][row]) == pytest.approx((own - least) / (most - least), abs=1e-5)


def test_a_beam_that_holds_everything_is_exact_and_a_narrow_one_is_within():
    batch = toy_batch(lengths=(7, 6, 2, 1, 3))
    network = toy_network(seed=1)
    with torch.no_grad():
        full = network(batch).logits.softmax(-1)
    target = full.argmax(-1)
    lower, upper = aopc_bounds(network, batch, target, full)
    assert lower.isnan().tolist() == upper.isnan().tolist() == [False, False, False, True, False]
    wide = aopc_bounds(network, batch, target, full, width=35, exact=0)  # 7 over 3: all sets of one size
    torch.testing.assert_close(torch.stack(wide), torch.stack((lower, upper)), atol=1e-6, rtol=0, equal_nan=True)
    spread = []
    for width in (1, 3):
        low, high = aopc_bounds(network, batch, target, full, width=width, exact=0)
        defined = ~lower.isnan()
        assert (low >= lower - 1e-6)[defined].all()
        assert (high <= upper + 1e-6)[defined].all()
        spread.append(float((high - low)[defined].sum()))
    assert spread[1] > spread[0] - 1e-6


@pytest.mark.parametrize("encoder", [None, TokenMLP(6, 5)])
def test_beams_of_an_example_are_the_same_alone_and_in_a_batch(encoder):
    batch = toy_batch(lengths=(11, 3, 14, 9), special=True, pad_to=17)
    network = toy_network(encoder=encoder)
    together, _ = measure(network, batch, NAMES, Settings(beam_width=3, exact_tokens=4))
    for row in range(4):
        separate, _ = measure(network, alone(batch, row), NAMES, Settings(beam_width=3, exact_tokens=4))
        for name in NAMES:
            assert float(together[name][row]) == pytest.approx(float(separate[name][0]), abs=1e-5, nan_ok=True)


def test_the_symmetric_gain_equals_a_loop_and_turns_its_sign_with_the_ranking():
    batch, network = toy_batch(lengths=(9, 14, 2, 1)), toy_network()
    with torch.no_grad():
        output = network(batch)
    found, _ = measure(network, batch, ["faithfulness/srg"], scores=output.attention)
    turned, _ = measure(network, batch, ["faithfulness/srg"], scores=-output.attention)
    torch.testing.assert_close(turned["faithfulness/srg"], -found["faithfulness/srg"], equal_nan=True)
    assert found["faithfulness/srg"].isnan().tolist() == [False, False, False, True]
    for row, n in enumerate((9, 14, 2)):
        text, p = alone(batch, row), output.logits[row].softmax(-1)
        order, target = output.attention[row, :n].argsort(descending=True).tolist(), int(p.argmax())
        counts = [min(n - 1, (2 * j * n + 9) // 18) for j in range(1, 10)]
        gains = [
            drop_of(network, text, order[:k], target, p[target])
            - drop_of(network, text, order[n - k :], target, p[target])
            for k in counts
        ]
        assert float(found["faithfulness/srg"][row]) == pytest.approx(sum(gains) / 9, abs=1e-5)


def test_presets_decide_the_class_the_sign_and_what_happens_to_tokens():
    batch, network = toy_batch(lengths=(9, 12, 11), classes=3), toy_network(classes=3, seed=2)
    scores = torch.where(batch.inner, torch.randn(batch.valid.shape, generator=torch.Generator().manual_seed(0)), 0.0)
    found, _ = measure(network, batch, NAMES, Settings(preset=PRESETS["attcat"]), scores)
    assert found["faithfulness/srg"].isnan().tolist() == [True, False, False]  # ten tokens or more
    assert ((found["faithfulness/naopc"] >= 0) & (found["faithfulness/naopc"] <= 1))[1:].all()
    signed, _ = measure(network, batch, NAMES, Settings(perturbation=Replace()), scores.abs())
    absolute = {**vars(PRESETS["ours"]), "ranking": "absolute"}
    other, _ = measure(
        network, batch, NAMES, Settings(preset=type(PRESETS["ours"])(**absolute), perturbation=Replace()), scores
    )
    for name in NAMES:
        torch.testing.assert_close(signed[name], other[name])


def test_a_search_out_of_range_is_refused():
    batch, network = toy_batch(), toy_network()
    with torch.no_grad():
        full = network(batch).logits.softmax(-1)
    with pytest.raises(InputError, match="width of at least 1, not 0"):
        aopc_bounds(network, batch, full.argmax(-1), full, width=0)
    with pytest.raises(InputError, match="up to 0 to 16 tokens, not 17"):
        aopc_bounds(network, batch, full.argmax(-1), full, exact=17)
