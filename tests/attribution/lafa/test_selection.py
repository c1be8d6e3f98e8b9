from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from lightning_attn.attribution.lafa import Exact, Faiss, Nearest, NeighbourIndex, Query, RandomTexts, selection
from lightning_attn.attribution.lafa.index import Description
from lightning_attn.errors import InputError


def made(vectors: torch.Tensor, predicted: torch.Tensor | None = None) -> NeighbourIndex:
    """An index in memory whose texts have one token each."""
    count = len(vectors)
    description = Description("", "", "keys", "simple_gradient", {}, count, count, vectors.shape[1], 3)
    return NeighbourIndex(
        Path("memory"),
        description,
        vectors=vectors,
        norms=vectors.square().sum(1),
        digests=torch.arange(count),
        predicted=torch.zeros(count, dtype=torch.long) if predicted is None else predicted,
        offsets=torch.arange(count + 1),
        tokens=torch.arange(count, dtype=torch.int32),
        scores=torch.ones(count),
        distances=torch.cdist(vectors, vectors).flatten().sort().values,
    )


def queries(vectors: torch.Tensor, digests: torch.Tensor | None = None, classes: torch.Tensor | None = None) -> Query:
    nothing = torch.full((len(vectors),), -1)
    return Query(
        vectors,
        nothing if digests is None else digests,
        nothing + 1 if classes is None else classes,
        torch.arange(len(vectors)),
    )


def random_vectors(count: int, seed: int = 0, size: int = 6) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(texts=st.integers(2, 60), asked=st.integers(1, 5), count=st.integers(1, 12), seed=st.integers(0, 99))
def test_exact_search_is_scikit_learns(texts: int, asked: int, count: int, seed: int) -> None:
    vectors, wanted = random_vectors(texts, seed), random_vectors(asked, seed + 100)
    expected = NearestNeighbors(n_neighbors=min(count, texts), algorithm="brute").fit(vectors.double().numpy())
    distances, rows = expected.kneighbors(wanted.double().numpy())
    found = selection.nearest(made(vectors), queries(wanted), Exact(), count, float("inf"), "any")
    assert torch.equal(found.rows[:, : rows.shape[1]], torch.from_numpy(rows))
    torch.testing.assert_close(found.distances[:, : rows.shape[1]].double(), torch.from_numpy(distances))
    assert not found.present[:, rows.shape[1] :].any()


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    index, asked = made(random_vectors(97)), queries(random_vectors(4, 1))
    whole = Nearest(5, None).select(index, asked)
    monkeypatch.setattr(selection, "_BLOCK", 4 * 10)
    parts = Nearest(5, None).select(index, asked)
    assert torch.equal(whole.rows, parts.rows)


def test_near_ties_are_ordered_by_exact_distances_then_rows() -> None:
    vectors = torch.full((10, 3), 1000.0)
    vectors[:, 0] += torch.arange(10).flip(0) * 2e-3
    products = vectors.square().sum(1) - 2 * vectors[9:] @ vectors.T
    assert products.argsort(stable=True)[0, :3].tolist() != [9, 8, 7], "products of single precision mix these up"
    assert Nearest(3, None).select(made(vectors), queries(vectors[9:])).rows.tolist() == [[9, 8, 7]]
    vectors[4] = vectors[8]
    assert Nearest(3, None).select(made(vectors), queries(vectors[8][None])).rows[0, :2].tolist() == [4, 8]


def test_a_text_is_no_neighbour_of_its_own_copies() -> None:
    vectors = random_vectors(20)
    index = made(vectors)
    index.digests[4] = 3  # the same text twice
    found = Nearest(19, None).select(index, queries(vectors[:4], digests=torch.arange(4)))
    for row in range(3):
        assert sorted(found.rows[row].tolist()) == [other for other in range(20) if other != row]
    assert sorted(found.rows[3].tolist()) == [-1, *[other for other in range(20) if other not in (3, 4)]]


def test_the_cutoff_leaves_out_what_is_far() -> None:
    vectors = torch.arange(10.0)[:, None]
    index = made(vectors)
    index.distances = torch.arange(0.0, 101.0) / 10
    found = Nearest(10, quantile=0.25).select(index, queries(torch.tensor([[0.1], [50.0]])))
    assert found.rows[0, :4].tolist() == [0, 1, 2, -1]
    assert not found.present[1].any()
    assert found.distances[1].isinf().all()


@pytest.mark.parametrize("engine", ["exact", "faiss"])
@pytest.mark.parametrize("classes", ["any", "same", "other"])
def test_classes_are_those_that_are_asked_for(engine: str, classes: str) -> None:
    if engine == "faiss":
        pytest.importorskip("faiss")
    vectors = random_vectors(300)
    predicted = torch.arange(300) % 3
    predicted[250:] = 2
    index, asked = made(vectors, predicted), queries(random_vectors(6, 1), classes=torch.arange(6) % 3)
    searcher = Exact() if engine == "exact" else Faiss(lists=4, probes=4)
    found = Nearest(5, None, classes, searcher).select(index, asked)  # type: ignore[arg-type]
    distances = torch.cdist(asked.vectors, vectors)
    same = asked.classes[:, None] == predicted
    wanted = {"any": torch.ones_like(same), "same": same, "other": ~same}[classes]
    expected = distances.masked_fill(~wanted, torch.inf).topk(5, largest=False).indices
    assert torch.equal(found.rows, expected)


def test_faiss_that_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(InputError, match="pip install faiss-cpu"):
        Faiss()


def test_random_texts_follow_the_index_and_reach_everything() -> None:
    vectors = random_vectors(30)
    index, asked = made(vectors), queries(random_vectors(500, 1))
    found = RandomTexts(4, seed=1).select(index, asked)
    assert set(found.rows.flatten().tolist()) == set(range(30))
    counts = torch.bincount(found.rows.flatten(), minlength=30)
    assert (counts > 30).all()
    assert (counts < 110).all()
    part = Query(asked.vectors[7:9], asked.digests[7:9], asked.classes[7:9], asked.index[7:9])
    assert torch.equal(RandomTexts(4, seed=1).select(index, part).rows, found.rows[7:9])
    assert not torch.equal(RandomTexts(4, seed=2).select(index, asked).rows, found.rows)
    own = queries(asked.vectors, digests=found.rows[:, 0])
    again = RandomTexts(4, seed=1).select(index, own)
    assert not again.present[:, 0].any()
    expected = (vectors[found.rows[:, 1]] - asked.vectors).norm(dim=1)
    torch.testing.assert_close(again.distances[again.present[:, 1], 1], expected[again.present[:, 1]])


def test_wrong_arguments_are_refused() -> None:
    for make, problem in (
        (lambda: Nearest(0), "max_neighbours of at least 1"),
        (lambda: Nearest(quantile=1.5), r"in \(0, 1\], not 1.5"),
        (lambda: Nearest(classes="own"), "any, same or other classes, not of 'own'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=problem):
            make()
    for classes in ("same", "other"):
        with pytest.raises(InputError, match="all 9 texts of the index memory for the same class"):
            Nearest(classes=classes).select(made(random_vectors(9)), queries(random_vectors(1)))  # type: ignore[arg-type]
