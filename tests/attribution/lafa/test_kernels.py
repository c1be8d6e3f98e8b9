from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances, manhattan_distances, polynomial_kernel

from lightning_attn.attribution import KERNELS, get_kernel
from lightning_attn.attribution.lafa.kernels import Cubic, InverseClippedDistance, Laplacian, Rbf, Words
from lightning_attn.errors import InputError


def words(ids: list[list[int]], table: torch.Tensor) -> Words:
    chosen = torch.tensor(ids)
    return Words(chosen, table[chosen])


@pytest.fixture(scope="module")
def pair() -> tuple[Words, Words]:
    table = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    table[7] = table[3]  # another word at the same place
    table[9] = 0
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(0, 40, (2, count), generator=generator).tolist() for count in (30, 33)]
    for row in drawn[0] + drawn[1]:
        row[:4] = [3, 7, 9, 5]
    return words(drawn[0], table), words(drawn[1], table)


EXPECTED = {
    "rbf": lambda a, b: np.exp(-euclidean_distances(a, b) / 4),
    "cubic": lambda a, b: polynomial_kernel(a, b, degree=3, gamma=7, coef0=0),
    "cosine": cosine_similarity,
    "laplacian": lambda a, b: np.exp(-manhattan_distances(a, b) / 4),
    "inverse_clipped_distance": lambda a, b: 1 / euclidean_distances(a, b).clip(0.3, 3),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_kernels_are_those_of_scikit_learn(name: str, pair: tuple[Words, Words]) -> None:
    one, other = pair
    found = get_kernel(name)(one, other)
    for row in range(2):
        expected = EXPECTED[name](one.vectors[row].double().numpy(), other.vectors[row].double().numpy())
        torch.testing.assert_close(found[row].double(), torch.from_numpy(expected), atol=1e-3, rtol=1e-4)


def test_the_indicator_compares_words_not_vectors(pair: tuple[Words, Words]) -> None:
    one, other = pair
    found = get_kernel("indicator")(one, other)
    assert found[0, 0, 0] == 1
    assert found[0, 0, 1] == 0, "the same vector, another word"
    expected = one.ids[:, :, None] == other.ids[:, None]
    assert torch.equal(found, expected.float())


def test_a_word_is_exactly_like_itself(pair: tuple[Words, Words]) -> None:
    one, _ = pair
    same = one.ids[:, :, None] == one.ids[:, None]
    far = Words(one.ids, one.vectors + 1000.0)  # where a product of matrices loses the difference
    assert (Rbf()(far, far)[same] == 1).all()
    assert InverseClippedDistance()(far, far)[same].min() == pytest.approx(1 / 0.3)


def test_parameters_are_those_of_the_formulas(pair: tuple[Words, Words]) -> None:
    one, other = pair
    distances = torch.cdist(one.vectors, other.vectors)
    torch.testing.assert_close(Rbf(3.0)(one, other), torch.exp(-distances / 9), atol=1e-4, rtol=1e-4)
    taxi = (one.vectors[:, :, None] - other.vectors[:, None]).abs().sum(-1)
    torch.testing.assert_close(Laplacian(1.5)(one, other), torch.exp(-taxi / 2.25), atol=1e-4, rtol=1e-4)
    products = torch.einsum("bnd,bmd->bnm", one.vectors, other.vectors)
    torch.testing.assert_close(Cubic(0.5, 1.0)(one, other), (0.5 * products + 1) ** 3, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Rbf(0), "length above 0, not 0"),
        (lambda: Laplacian(-1), "length above 0, not -1"),
        (lambda: InverseClippedDistance(0), "low above 0"),
        (lambda: InverseClippedDistance(2, 1), "high of at least low, not 1"),
        (lambda: get_kernel("gauss"), "no kernel 'gauss'; the kernels are cosine, cubic, indicator"),
    ],
)
def test_wrong_arguments_are_refused(make, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make()


def test_every_kernel_has_a_name() -> None:
    assert set(EXPECTED) | {"indicator"} == set(KERNELS)
