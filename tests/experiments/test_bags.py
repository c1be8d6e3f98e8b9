"""The experiments on bags: the same figures whether they come packed or padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_attn.experiments import (
    AdversarialCallback,
    AgreementCallback,
    CounterfactualCallback,
    PermutationCallback,
)
from tests.helpers.toy_bags import toy_bag_network, toy_bags


@pytest.mark.parametrize("network", ["gated", "multihead", "mean"])
@pytest.mark.parametrize("kind", [AgreementCallback, PermutationCallback, AdversarialCallback, CounterfactualCallback])
def test_packed_bags_give_the_figures_of_padded_ones(kind: Any, network: str) -> None:
    built, bags = toy_bag_network(network), toy_bags()
    padded, packed = (kind().measure(built, [batch]) for batch in (bags, bags.pack()))
    assert padded.values["tokens"].tolist() == [7, 1, 12, 4]
    assert padded.values.keys() == packed.values.keys()
    for name, values in padded.values.items():
        np.testing.assert_allclose(packed.values[name], values, atol=1e-4, err_msg=name)
    assert packed.figures()
