"""`PublishedSolver` against the published procedure written for one example."""

from __future__ import annotations

import pytest
import torch

from lightning_attn.errors import InputError
from lightning_attn.metrics.adversarial import PublishedSolver
from lightning_attn.ops.divergence import jensen_shannon
from lightning_attn.ops.randomness import normal
from tests.helpers.toys import alone, toy_batch, toy_mlp


def one_by_one(network, batch, adversaries: int, steps: int, seed: int) -> float:
    """The largest divergence of one example without padding, as METHODS and the published code have it."""
    with torch.no_grad():
        output = network(batch)
    schema = network.schema
    p, a = schema.probabilities(output.logits)[0], output.attention[0]
    length = len(a)
    z = torch.stack([3 * normal(batch.index, length, seed * adversaries + k)[0] for k in range(adversaries)])
    z.requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.01, amsgrad=True)

    def probabilities(b):
        return schema.probabilities(network.classify(output.values, b[None], batch))[0]

    for _ in range(steps):
        optimiser.zero_grad()
        b = [row.softmax(-1) for row in z]
        loss = torch.zeros(())
        for one in b:
            loss = loss - jensen_shannon(one, a) + 500 * ((probabilities(one) - p).abs().sum() - 0.01).relu()
        loss = loss - torch.stack([jensen_shannon(x, y) for x in b for y in b]).mean()
        loss.backward()
        optimiser.step()
    most = 0.0
    with torch.no_grad():
        for one in z:
            moved = (probabilities(one.softmax(-1)) - p).abs()
            change = moved.mean() if schema.multi_label else moved.sum() / 2
            if change <= 0.05:
                most = max(most, jensen_shannon(one.softmax(-1), a).item())
    return most


@pytest.mark.parametrize(("classes", "multi_label"), [(2, False), (3, False), (3, True)])
def test_equals_the_procedure_one_by_one(classes, multi_label):
    network = toy_mlp("mlp", classes, multi_label, seed=2)
    batch = toy_batch((6, 9, 4), seed=2, classes=classes, multi_label=multi_label)
    with torch.no_grad():
        found = PublishedSolver(adversaries=3, steps=40, seed=5).solve(network, network(batch), batch)
    for row in range(len(batch)):
        expected = one_by_one(network, alone(batch, row), 3, 40, 5)
        assert found.jsd[row].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["adversaries", "steps"])
def test_none_of_something_is_the_users_mistake(name):
    with pytest.raises(InputError, match=f"PublishedSolver needs {name} of at least 1, not 0"):
        PublishedSolver(**{name: 0})
