import numpy as np
import torch

from lightning_attn.data import EncodedDataset


def dataset(**more) -> EncodedDataset:
    return EncodedDataset(
        ids=np.array([2, 7, 3, 2, 8, 9, 3, 2, 5, 3], dtype=np.int32),
        offsets=np.array([0, 3, 7, 10]),
        special=np.array([1, 0, 1, 1, 0, 0, 1, 1, 0, 1], dtype=bool),
        labels=np.array([1, 0, 1]),
        **more,
    )


def test_a_batch_is_padded_to_its_longest() -> None:
    batch = dataset()[[2, 1]]
    assert batch.inputs.tolist() == [[2, 5, 3, 0], [2, 8, 9, 3]]
    assert batch.valid.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.inner.tolist() == [[False, True, False, False], [False, True, True, False]]
    assert batch.target.tolist() == [1, 0]
    assert batch.index.tolist() == [2, 1]
    assert (batch.inputs.dtype, batch.valid.dtype, batch.index.dtype) == (torch.int64, torch.bool, torch.int64)
    assert dataset()[[2]].inputs.shape == (1, 3)


def test_one_row_is_a_batch_of_one() -> None:
    assert dataset()[0].inputs.tolist() == [[2, 7, 3]]


def test_padding_is_filled_with_the_pad_id() -> None:
    assert EncodedDataset(
        np.array([4, 4, 4]), np.array([0, 1, 3]), np.zeros(3, dtype=bool), np.array([0, 1]), pad_id=9
    )[[0, 1]].inputs.tolist() == [[4, 9], [4, 4]]


def test_evidence_is_nan_where_there_is_padding() -> None:
    evidence = np.array([np.nan, 1, np.nan, np.nan, 0, 1, np.nan, np.nan, 1, np.nan], dtype=np.float32)
    batch = dataset(evidence=evidence)[[0, 1]]
    assert batch.evidence is not None
    assert batch.evidence[:, 1:3].nan_to_num(9).tolist() == [[1, 9], [0, 1]]
    assert torch.equal(~batch.evidence.isnan(), batch.inner)


def test_queries_have_their_own_length() -> None:
    batch = dataset(query_ids=np.array([4, 5, 6, 7]), query_offsets=np.array([0, 1, 1, 4]))[[0, 2]]
    assert batch.query is not None
    assert batch.query_valid is not None
    assert batch.query.tolist() == [[4, 0, 0], [5, 6, 7]]
    assert batch.query_valid.tolist() == [[True, False, False], [True] * 3]


def test_agrees_with_a_loop_over_tokens_and_works_memory_mapped(tmp_path) -> None:
    generator = np.random.default_rng(0)
    texts = [generator.integers(4, 99, size=size).tolist() for size in generator.integers(1, 12, size=40)]
    np.save(tmp_path / "ids.npy", np.concatenate(texts).astype(np.int32))
    ids = np.load(tmp_path / "ids.npy", mmap_mode="r")
    offsets = np.cumsum([0, *map(len, texts)])
    split = EncodedDataset(ids, offsets, np.zeros(len(ids), dtype=bool), np.zeros(40, dtype=np.int64))
    rows = generator.permutation(40)[:16].tolist()
    width = max(len(texts[row]) for row in rows)
    assert split[rows].inputs.tolist() == [texts[row] + [0] * (width - len(texts[row])) for row in rows]
    assert split.lengths.tolist() == [len(text) for text in texts]
