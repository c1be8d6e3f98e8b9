from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_attn.attribution import get
from lightning_attn.attribution.lafa import NeighbourIndex, Reader, build, fingerprint, text_digests
from lightning_attn.data import AttentionDataModule, EncodedDataset, SyntheticReviewsDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.mitigations import InstanceWeighting
from lightning_attn.networks import PooledNetwork
from lightning_attn.types import Batch, DataSchema
from tests.helpers.runs import tiny_data, tiny_module
from tests.helpers.toys import alone, toy_batch, toy_network


@pytest.fixture(scope="module")
def data() -> SyntheticReviewsDataModule:
    return tiny_data(train=60)


@pytest.fixture(scope="module")
def network(data: SyntheticReviewsDataModule) -> PooledNetwork:
    return tiny_module(data, sharpness=3.0).network.eval()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def index(network: PooledNetwork, data: SyntheticReviewsDataModule, tmp_path_factory: Any) -> NeighbourIndex:
    return NeighbourIndex.build(network, data, tmp_path_factory.mktemp("index") / "reviews", max_tokens=100)


def test_it_holds_what_the_network_says_of_each_text_alone(
    index: NeighbourIndex, network: PooledNetwork, data: SyntheticReviewsDataModule
) -> None:
    texts = data.dataset("train")
    assert len(index) == len(texts) == 60
    for row in range(60):
        batch = texts[[row]]
        output = network(batch)
        first, last = index.offsets[row], index.offsets[row + 1]
        assert index.tokens[first:last].tolist() == batch.inputs[batch.inner].tolist()
        scores = get("simple_gradient").attribute(network, batch)[batch.inner]
        torch.testing.assert_close(index.scores[first:last], scores, atol=1e-7, rtol=1e-4)
        keys = network.encode(network.embed(batch), batch)[0][batch.inner].mean(0)
        torch.testing.assert_close(index.vectors[row], keys.detach(), atol=1e-6, rtol=1e-4)
        assert index.predicted[row] == output.logits.argmax()
        assert index.digests[row] == text_digests(batch)[0]
    torch.testing.assert_close(index.norms, index.vectors.square().sum(1))
    assert index.lengths(torch.tensor([3, 5])).tolist() == [int((~texts[[row]].special).sum()) for row in (3, 5)]


def test_it_is_memory_mapped_and_left_as_it_is(index: NeighbourIndex) -> None:
    again = NeighbourIndex.open(index.path)
    before = (index.path / "vectors.npy").read_bytes()
    again.vectors.zero_()
    assert (index.path / "vectors.npy").read_bytes() == before
    assert {file.name for file in index.path.iterdir()} == {
        "index.json",
        *(f"{name}.npy" for name in build.ARRAYS),
    }


def test_the_cutoff_is_a_quantile_of_distances(index: NeighbourIndex) -> None:
    distances = torch.cdist(index.vectors.double(), index.vectors.double())
    pairs = distances[~torch.eye(60, dtype=torch.bool)]
    for quantile in (0.05, 0.5, 0.9):
        expected = torch.quantile(pairs, quantile)
        assert index.cutoff(quantile) == pytest.approx(expected.item(), rel=0.03)
    assert index.cutoff(None) == float("inf")
    with pytest.raises(InputError, match=r"must be in \(0, 1\], not 0"):
        index.cutoff(0)


def test_the_lexicon_is_the_mean_score_of_a_word(index: NeighbourIndex) -> None:
    tokens, scores = index.tokens.numpy(), index.scores.numpy()
    for word in np.unique(tokens):
        assert index.lexicon[word].item() == pytest.approx(scores[tokens == word].mean(), rel=1e-4)
    assert index.lexicon[0] == 0


def changed(network: PooledNetwork) -> PooledNetwork:
    other = tiny_module(tiny_data(train=60), sharpness=3.0).network
    other.load_state_dict(network.state_dict())
    return other.eval()  # type: ignore[return-value]


def test_an_index_belongs_to_its_network_to_the_last_weight(index: NeighbourIndex, network: PooledNetwork) -> None:
    index.check(network)
    copy = changed(network)
    index.check(copy)
    with torch.no_grad():
        copy.head.layers.bias[0] += 1e-6
    with pytest.raises(InputError, match="belongs to another checkpoint"):
        index.check(copy)


def test_fingerprints_follow_weights_and_schema_and_nothing_else(network: PooledNetwork) -> None:
    copy = changed(network)
    assert fingerprint(copy) == fingerprint(network)
    copy.set_mitigation(InstanceWeighting())
    copy.train()
    assert fingerprint(copy) == fingerprint(network)
    names = ("positive", "negative")
    other = PooledNetwork(BiLSTM(8, 6)).build(DataSchema(**{**network.schema.as_dict(), "class_names": names}))
    other.load_state_dict(network.state_dict())
    assert fingerprint(other) != fingerprint(network)


def test_digests_tell_texts_apart_by_words_and_order_alone() -> None:
    batch = toy_batch(lengths=(5, 5, 3), special=True, pad_to=9)
    digests = text_digests(batch)
    assert len(set(digests.tolist())) == 3
    for row in range(3):
        assert text_digests(alone(batch, row))[0] == digests[row]
    swapped = batch.inputs.clone()
    swapped[0, [1, 2]] = swapped[0, [2, 1]]
    assert text_digests(batch.replace(inputs=swapped))[0] != digests[0]
    other_ends = torch.where(batch.special, 1, batch.inputs)
    assert torch.equal(text_digests(batch.replace(inputs=other_ends)), digests)
    asked = batch.replace(query=batch.inputs, query_valid=batch.valid)
    assert not set(text_digests(asked).tolist()) & set(digests.tolist())


class Killed(Exception):  # noqa: N818 - no error of ours
    pass


def test_a_killed_build_goes_on(
    network: PooledNetwork,
    data: SyntheticReviewsDataModule,
    index: NeighbourIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    keep = build._keep

    def interrupted(arrays: Any, batch: Batch, *rest: Any) -> None:
        if len(read) == 7:
            raise Killed
        read.append(len(batch))
        keep(arrays, batch, *rest)

    monkeypatch.setattr(build, "_SAVED_EVERY", 3)
    monkeypatch.setattr(build, "_keep", interrupted)
    folder = tmp_path / "index"
    with pytest.raises(Killed):
        NeighbourIndex.build(network, data, folder, max_tokens=100)
    with pytest.raises(InputError, match="run it again"):
        NeighbourIndex.open(folder)
    with pytest.raises(InputError, match="unfinished index of another network"):
        NeighbourIndex.build(network, data, folder, layer="values", max_tokens=100)
    read.clear()
    monkeypatch.setattr(build, "_keep", lambda *given: (read.append(1), keep(*given)))
    again = NeighbourIndex.build(network, data, folder, max_tokens=100)
    batches = build._batches(data.dataset("train").lengths, 100)
    assert len(read) == len(batches) - 6
    for name in build.ARRAYS:
        assert torch.equal(getattr(again, name), getattr(index, name))
    read.clear()
    NeighbourIndex.build(network, data, folder, max_tokens=100)
    assert not read, "a complete index is opened"
    with pytest.raises(InputError, match="holds an index of another network"):
        NeighbourIndex.build(network, data, folder, base="input_gradient")


def test_progress_is_counted_in_texts(
    network: PooledNetwork,
    data: SyntheticReviewsDataModule,
    index: NeighbourIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches of other sizes left most of the vectors zeros."""
    batches: list[Batch] = []
    keep = build._keep

    def killed_at_the_last(arrays: Any, batch: Batch, *rest: Any) -> None:
        keep(arrays, batch, *rest)
        batches.append(batch)
        if len(batches) == 20:
            raise Killed

    monkeypatch.setattr(build, "_SAVED_EVERY", 1)
    monkeypatch.setattr(build, "_keep", killed_at_the_last)
    with pytest.raises(Killed):
        NeighbourIndex.build(network, data, tmp_path, max_tokens=20)
    again = NeighbourIndex.build(network, data, tmp_path, max_tokens=400)
    assert sum(map(len, batches)) < 60 + 2 * 3, "what was there was kept"
    for name in build.ARRAYS:
        torch.testing.assert_close(getattr(again, name), getattr(index, name), atol=1e-5, rtol=1e-4)


def test_an_index_that_lost_a_file_is_made_again(
    network: PooledNetwork, data: SyntheticReviewsDataModule, index: NeighbourIndex, tmp_path: Path
) -> None:
    folder = copied(index, tmp_path / "lost")
    (folder / "scores.npy").unlink()
    again = NeighbourIndex.build(network, data, folder, max_tokens=100)
    for name in build.ARRAYS:
        assert torch.equal(getattr(again, name), getattr(index, name))


@pytest.mark.parametrize("left", [".progress.json", "progress.json.part", "vectors.npy", "vectors.npy.part"])
def test_a_build_that_was_killed_while_it_made_its_files_goes_on(
    network: PooledNetwork, data: SyntheticReviewsDataModule, index: NeighbourIndex, tmp_path: Path, left: str
) -> None:
    if left.startswith("vectors"):
        progress = {"version": build.VERSION, "description": asdict(index.description), "rows": 0}
        (tmp_path / "progress.json").write_text(json.dumps(progress))
    (tmp_path / left).write_bytes(b"\x93NUM")
    again = NeighbourIndex.build(network, data, tmp_path, max_tokens=100)
    for name in build.ARRAYS:
        assert torch.equal(getattr(again, name), getattr(index, name))


@pytest.mark.parametrize("layer", ["embeddings", "keys", "values", "pooled"])
def test_texts_become_the_mean_of_a_layer(layer: str) -> None:
    batch = toy_batch(special=True, pad_to=14)
    network = toy_network(encoder=BiLSTM(6, 5, values="local"))
    output = network(batch)
    embeddings = network.embed(batch)
    states = {"embeddings": embeddings, "values": output.values, "keys": network.encode(embeddings, batch)[0]}
    found = Reader(network, layer).read(batch)
    for row in range(len(batch)):
        if layer == "pooled":
            expected = (output.attention[row][:, None] * output.values[row]).sum(0)
        else:
            inner = batch.inner[row]
            expected = states[layer][row][inner].mean(0) if inner.any() else torch.zeros_like(states[layer][row, 0])
        torch.testing.assert_close(found.vectors[row], expected.detach())
    torch.testing.assert_close(found.logits, output.logits.detach())


def test_a_reading_along_takes_no_pass_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, network = toy_batch(), toy_network()
    reader = Reader(network, "keys")
    expected, forward = reader.read(batch), network.forward
    passes: list[int] = []
    monkeypatch.setattr(network, "forward", lambda *args, **kwargs: passes.append(1) or forward(*args, **kwargs))
    target = expected.logits.argmax(-1)
    for name in ("simple_gradient", "input_gradient", "gradient", "attention", "random"):
        passes.clear()
        attributions, reading = reader.read_along(get(name), batch, target)
        assert len(passes) == 1, name
        assert torch.equal(attributions, get(name).attribute(network, batch, target))
        torch.testing.assert_close(reading.vectors, expected.vectors)
        torch.testing.assert_close(reading.logits, expected.logits)


def test_layers_that_are_not_there_are_named() -> None:
    for layer, problem in (
        ("hidden:2", "has no PretrainedEncoder"),
        ("top", "no layer 'top'"),
        ("hidden:x", "no layer"),
    ):
        with pytest.raises(InputError, match=problem):
            Reader(toy_network(), layer)


class OtherData(AttentionDataModule):
    """Hands out a given training split."""

    def __init__(self, texts: EncodedDataset, schema: DataSchema) -> None:
        super().__init__()
        self.texts, self.given = texts, schema

    schema = property(lambda self: self.given)
    splits = property(lambda self: ["train"])
    export = restore = describe = None  # type: ignore[assignment]

    def dataset(self, split: str) -> Any:
        return self.texts


def test_bad_collections_are_refused(network: PooledNetwork, data: SyntheticReviewsDataModule, tmp_path: Path) -> None:
    texts = data.dataset("train")
    for count in (0, 1):
        end = texts.offsets[count]
        few = EncodedDataset(texts.ids[:end], texts.offsets[: count + 1], texts.special[:end], texts.labels[:count])
        with pytest.raises(InputError, match=f"at least two training texts, and the data have {count}"):
            NeighbourIndex.build(network, OtherData(few, data.schema), tmp_path / "few")
    schema = DataSchema(**{**data.schema.as_dict(), "vocabulary_size": 7, "class_names": data.schema.class_names})
    with pytest.raises(InputError, match="vocabulary size"):
        NeighbourIndex.build(network, OtherData(texts, schema), tmp_path / "other")
    with pytest.raises(InputError, match="OtherData has none"):
        NeighbourIndex.build(network, OtherData([1, 2, 3], data.schema), tmp_path / "none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no attribution method 'magic'"):
        NeighbourIndex.build(network, data, tmp_path / "base", base="magic")
    with pytest.raises(InputError, match="plain values"):
        NeighbourIndex.build(network, data, tmp_path / "base", base="occlusion", options={"perturbation": object()})
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="is not empty"):
        NeighbourIndex.build(network, data, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    with pytest.raises(InputError, match="cannot be made"):
        NeighbourIndex.build(network, data, tmp_path / "mine.txt" / "below")


def copied(index: NeighbourIndex, folder: Path) -> Path:
    folder.mkdir()
    for file in index.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_missing_and_damaged_indices_are_refused(index: NeighbourIndex, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index of neighbours at"):
        NeighbourIndex.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no finished index"):
        NeighbourIndex.open(tmp_path / "empty")
    for number, name in enumerate(build.ARRAYS):
        folder = copied(index, tmp_path / str(number))
        file = folder / f"{name}.npy"
        content = file.read_bytes()
        for cut in (content[:-8], content[:10], b"", content.replace(b"\x93NUMPY", b"\x80\x04NUMP")):
            file.write_bytes(cut)
            with pytest.raises(InputError, match=rf"{name}.npy.* truncated or damaged"):
                NeighbourIndex.open(folder)
        np.save(file, np.zeros(3))
        with pytest.raises(InputError, match=rf"{name}.npy holds float64 of shape \(3,\)"):
            NeighbourIndex.open(folder)
        file.unlink()
        with pytest.raises(InputError, match=f"lost its file {name}.npy"):
            NeighbourIndex.open(folder)
    folder = copied(index, tmp_path / "description")
    values = json.loads((folder / "index.json").read_text())
    for content, problem in (
        ("{", "damaged"),
        ("[]", "damaged"),
        (json.dumps({**values, "version": 0}), "version 0"),
        (json.dumps({**values, "more": 1}), "damaged"),
    ):
        (folder / "index.json").write_text(content)
        with pytest.raises(InputError, match=problem):
            NeighbourIndex.open(folder)


def test_arrays_of_objects_are_never_unpickled(index: NeighbourIndex, tmp_path: Path) -> None:
    folder = copied(index, tmp_path / "evil")
    np.save(folder / "norms.npy", np.array([{"a": 1}] * 60, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="damaged"):
        NeighbourIndex.open(folder)


def test_unfinished_progress_files_that_are_damaged_say_so(
    network: PooledNetwork, data: SyntheticReviewsDataModule, tmp_path: Path
) -> None:
    (tmp_path / "progress.json").write_text("{}")
    with pytest.raises(InputError, match=r"progress.json is damaged: delete"):
        NeighbourIndex.build(network, data, tmp_path)
