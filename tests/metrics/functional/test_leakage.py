from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_attn.metrics.functional.leakage import FEATURES, attention_features, fano_bits, leaked_bits


def masks(count: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Attention over up to 12 positions; ``shift`` moves it to the front for label 1."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.arange(12) < torch.randint(3, 13, (count, 1), generator=generator)
    target = torch.randint(0, 2, (count,), generator=generator)
    scores = torch.randn(count, 12, generator=generator)
    scores[:, 0] += shift * target
    attention = scores.masked_fill(~inner, -torch.inf).softmax(-1)
    return attention_features(attention, inner).double().numpy(), target.numpy()


@pytest.mark.parametrize("seed", range(5))
def test_independent_attention_leaks_about_nothing(seed):
    result = leaked_bits(*masks(400, seed))
    assert abs(result.leaked_bits) < 0.02
    assert result.low <= result.leaked_bits <= result.high


def test_attention_that_encodes_the_label_leaks_it():
    result = leaked_bits(*masks(400, 0, shift=20.0))
    assert result.leaked_bits > 0.9
    assert result.mask_only_accuracy > 0.98
    assert abs(result.length_bits) < 0.02
    weak = leaked_bits(*masks(400, 0, shift=1.5))
    assert 0.05 < weak.leaked_bits < 0.6
    assert weak.low > 0


def test_length_is_reported_apart():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (300,), generator=generator)
    lengths = torch.randint(3, 8, (300,), generator=generator) + 5 * target
    inner = torch.arange(12) < lengths[:, None]
    uniform = inner / inner.sum(-1, keepdim=True)
    result = leaked_bits(attention_features(uniform, inner).double().numpy(), target.numpy())
    assert result.length_bits > 0.9
    assert abs(result.leaked_bits - result.length_bits) < 0.05


def test_gains_of_the_examples_have_the_leaked_bits_as_their_mean():
    features, target = masks(120, 1, 1.0)
    target = np.concatenate([target, [2]])  # a class of one example is left out
    result = leaked_bits(np.concatenate([features, features[:1]]), target)
    assert result.gains.shape == (121,)
    assert np.isnan(result.gains[120])
    assert np.nanmean(result.gains) == pytest.approx(result.leaked_bits)
    assert len(leaked_bits(features[:0], target[:0]).gains) == 0


def test_same_input_same_result():
    assert leaked_bits(*masks(120, 1, 1.0)) == leaked_bits(*masks(120, 1, 1.0))


def test_too_little_or_one_class_is_undefined_and_says_why():
    features, target = masks(30, 0)
    for few in (leaked_bits(features, np.zeros_like(target)), leaked_bits(features[:6], target[:6])):
        assert math.isnan(few.leaked_bits)
        assert "classes" in few.reason
    assert math.isnan(leaked_bits(features[:0], target[:0]).leaked_bits)


def test_features_do_not_see_padding():
    inner = torch.tensor([[True] * 5 + [False] * 2])
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25, 0.0, 0.0]])
    wide = attention_features(attention, inner)
    assert wide.shape == (1, FEATURES)
    torch.testing.assert_close(attention_features(attention[:, :5], inner[:, :5]), wide)


def test_fano():
    assert fano_bits(np.array([0.5, 0.5]), 1.0) == pytest.approx(1.0)
    assert fano_bits(np.array([0.5, 0.5]), 0.738) == pytest.approx(0.170, abs=1e-3)
    assert fano_bits(np.array([0.25] * 4), 0.7) == pytest.approx(2 - 0.8813 - 0.3 * math.log2(3), abs=1e-4)
