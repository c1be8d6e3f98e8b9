import builtins
import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attn.data.bags import BagArrayDataModule, stored
from lightning_attn.errors import InputError

SIZES = [3, 1, 2, 4, 1, 2, 3, 1]


def arrays_of(**changes) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    found = {
        "features": generator.normal(size=(sum(SIZES), 2, 3)),
        "sizes": np.array(SIZES),
        "label": np.arange(8) % 2,
        "id": np.array([f"b{number}" for number in range(8)]),
        "keys": np.array([[0, 2], [3, 0], [3, 3]]),
        **changes,
    }
    return {name: array for name, array in found.items() if array is not None}


def write(path: Path, **changes) -> Path:
    found = arrays_of(**changes)
    if path.suffix == ".npz":
        np.savez(path, **found)
        return path
    h5py = pytest.importorskip("h5py", reason="reading .h5 needs h5py, which is not installed")
    with h5py.File(path, "w") as file:
        for name, array in found.items():
            file[name] = array.astype(object) if array.dtype.kind == "U" else array
    return path


def opened(path: Path, **arguments) -> BagArrayDataModule:
    data = BagArrayDataModule(path, **{"val_share": 0.25, "test_share": 0.25, **arguments})
    data.prepare_data()
    data.setup()
    return data


def check(data: BagArrayDataModule) -> None:
    found = arrays_of()
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    seen = set()
    for split in data.splits:
        part = data.dataset(split)
        for row, name in enumerate(part.names.tolist()):
            bag = int(name[1:])
            batch = part[row]
            inside = slice(offsets[bag], offsets[bag + 1])
            np.testing.assert_array_equal(batch.inputs, found["features"][inside].astype(np.float32))
            keys = [instance for number, instance in found["keys"].tolist() if number == bag]
            assert np.flatnonzero(batch.evidence[0]).tolist() == keys
            assert batch.target.item() == bag % 2
            seen.add(name)
    assert len(seen) == 8


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_both_formats_give_the_bags(tmp_path: Path, name: str) -> None:
    data = opened(write(tmp_path / name))
    check(data)
    assert data.schema.feature_shape == (2, 3)
    assert data.schema.class_names == ("0", "1")


def test_compressed_archives_and_fortran_order_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **arrays_of())
    check(opened(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **arrays_of(features=np.asfortranarray(arrays_of()["features"])))
    check(opened(tmp_path / "b.npz"))


@given(st.lists(st.integers(1, 6), min_size=4, max_size=30), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_parts_add_up_to_the_whole(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], rows: int) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    features = np.arange(3 * sum(sizes), dtype=np.int32).reshape(-1, 3)
    label = np.arange(len(sizes)) % 2
    np.savez(folder / "a.npz", features=features, sizes=np.array(sizes), label=label)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_attn.data.bags.stored.CHUNK", 12 * rows)
        data = opened(folder / "a.npz", val_share=0, test_share=0, cache_dir=folder / "cache")
    np.testing.assert_array_equal(data.dataset("train").features, features)
    assert data.dataset("train").lengths.tolist() == sizes
    assert data.dataset("train").names.tolist() == [str(number) for number in range(len(sizes))]


def test_a_number_an_instance_is_evidence(tmp_path: Path) -> None:
    key = np.linspace(0, 1, sum(SIZES))
    key[4] = np.nan
    data = opened(write(tmp_path / "a.npz", keys=None, key=key), val_share=0, test_share=0)
    np.testing.assert_allclose(data.dataset("train").evidence, key.astype(np.float32))
    data = opened(write(tmp_path / "b.npz", keys=None), val_share=0, test_share=0)
    assert data.dataset("train")[0].evidence is None


def test_labels_may_be_names_columns_or_numbers_with_names(tmp_path: Path) -> None:
    names = np.array(["cat", "dog"] * 4)
    assert opened(write(tmp_path / "a.npz", label=names)).schema.class_names == ("cat", "dog")
    data = opened(write(tmp_path / "b.npz", class_names=np.array(["no", "yes"])))
    assert data.schema.class_names == ("no", "yes")
    columns = np.array([[1, 0, 1], [0, 1, 1]] * 4)
    data = opened(
        write(tmp_path / "c.npz", label=columns, class_names=np.array(["x", "y", "z"])), val_share=0, test_share=0
    )
    assert data.schema.multi_label
    assert data.schema.class_names == ("x", "y", "z")
    assert data.dataset("train").labels.tolist() == columns.tolist()
    assert opened(write(tmp_path / "d.npz", label=np.arange(8) % 2.0)).schema.class_names == ("0", "1")


def test_splits_stand_in_an_array_or_in_file_names(tmp_path: Path) -> None:
    split = np.array(["train"] * 5 + ["validation", "test", "test"])
    data = opened(write(tmp_path / "a.npz", split=split))
    assert [len(data.dataset(name)) for name in ("train", "val", "test")] == [5, 1, 2]
    assert data.dataset("val").names.tolist() == ["b5"]
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        write(folder / f"{name}.npz")
    data = opened(folder)
    assert [len(data.dataset(name)) for name in ("train", "val", "test")] == [8, 8, 8]


def test_what_else_is_in_the_file_is_said(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "a.npz", coordinates=np.zeros((17, 2))))
    assert "Ignored coordinates." in data.describe()


def with_number(value: float) -> np.ndarray:
    features = arrays_of()["features"]
    features[4, 1, 0] = value
    return features


CHANGES = {
    "no number": ({"features": with_number(np.nan)}, "instance 0 of the bag 'b2' has no number as feature 4"),
    "infinite": ({"features": with_number(np.inf)}, "instance 0 of the bag 'b2' has an infinite number as feature 4"),
    "empty": ({"sizes": np.array([3, 1, 2, 4, 0, 3, 3, 1])}, "the bag 'b4' is empty (size 0); remove it"),
    "sum": ({"sizes": np.array([3, 1, 2, 4, 1, 2, 3, 2])}, "has 17 instances, but the sizes of its bags add up to 18"),
    "widths": (
        {"features": np.array([[1.0], [1.0, 2.0]], dtype=object)},
        "holds object; it should hold numbers, all in",
    ),
    "flat": ({"features": np.zeros(17)}, "features has the shape (17,); it should be one row per instance"),
    "strings": ({"features": np.full((17, 2), "x")}, "it should hold numbers"),
    "key": (
        {"keys": np.array([[0, 2], [1, 1]])},
        "the bag 'b1' has the key 1, but its instances are numbered from 0 to 0",
    ),
    "negative": (
        {"keys": np.array([[0, -1]])},
        "the bag 'b0' has the key -1, but its instances are numbered from 0 to 2",
    ),
    "key bag": ({"keys": np.array([[8, 0]])}, "keys name the bag number 8, but there are 8 bags"),
    "keys": ({"keys": np.array([1, 2])}, "keys should be whole numbers of shape (K, 2), not int64 of shape (2,)"),
    "two": (
        {"key": np.zeros(17)},
        "has key (a number per instance) and keys (pairs of bag and instance); leave one out",
    ),
    "range": ({"keys": None, "key": np.full(17, 2.0)}, "instance 0 of the bag 'b0' has the key 2; it should be from 0"),
    "length": ({"keys": None, "key": np.zeros(5)}, "key has the shape (5,), but there are 17 instances"),
    "label": ({"label": np.arange(7)}, "label has the shape (7,), but there are 8 bags"),
    "broken": ({"label": np.arange(8) / 2}, "the bag 'b1' has the label 0.5; it should be a string or a whole number"),
    "complex": (
        {"label": np.zeros(8, dtype=complex)},
        "label holds complex128; it should hold strings or whole numbers",
    ),
    "columns": ({"label": np.full((8, 2), 3)}, "the bag 'b0' has 3 in column 1 of label; it should be 0 or 1"),
    "names": ({"class_names": np.array(["x"])}, "the bag 'b1' has the label 1, but there are 1 class_names"),
    "wide": (
        {"label": np.zeros((8, 2)), "class_names": np.array(["x"])},
        "label has 2 columns, but there are 1 class_na",
    ),
    "double": ({"id": np.array(["b0"] * 8)}, "has two bags of the id 'b0'"),
    "ids": ({"id": np.array(["b0"])}, "id has the shape (1,); it should be one value per bag"),
    "split": ({"split": np.array(["train"] * 7 + ["rest"])}, "the bag 'b7' is of the split 'rest'; it should be train"),
    "missing": ({"sizes": None}, "has no array 'sizes'; it has features, label, id, keys"),
    "sizes": ({"sizes": np.array(SIZES) * 1.0}, "sizes should be whole numbers of shape (B,), not float64"),
    "objects": ({"id": np.array(["b"] * 8, dtype=object)}, "id cannot be read (Object arrays cannot be loaded"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_bad_arrays_are_named(tmp_path: Path, change: str) -> None:
    changes, problem = CHANGES[change]
    path = write(tmp_path / "a.npz", **changes)
    with pytest.raises(InputError) as raised:
        opened(path)
    assert problem in str(raised.value)
    assert str(path) in str(raised.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(InputError, match=r"a\.npz is damaged, or no \.npz file"):
        opened(path)
    np.savez_compressed(path, **arrays_of(features=np.random.default_rng(0).normal(size=(17, 50, 3))))
    content = bytearray(path.read_bytes())
    content[600:700] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz is damaged"):
        opened(path)


def test_a_damaged_h5_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="reading .h5 needs h5py, which is not installed")
    path = tmp_path / "a.h5"
    path.write_bytes(b"not one")
    with pytest.raises(InputError, match=r"a\.h5 is damaged, or no \.h5 file"):
        opened(path)


def test_without_h5py_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5").write_bytes(b"")
    found = builtins.__import__

    def without(name: str, *arguments, **keywords):
        if name == "h5py":
            raise ModuleNotFoundError(name)
        return found(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="needs the package h5py: pip install h5py"):
        opened(tmp_path / "a.h5")


def test_files_of_one_data_set_must_be_alike(tmp_path: Path) -> None:
    write(tmp_path / "train.npz")
    write(tmp_path / "test.npz", keys=None)
    with pytest.raises(InputError, match="differ in having key, keys or class_names"):
        opened(tmp_path)
    write(tmp_path / "test.npz", features=np.zeros((17, 5)))
    with pytest.raises(InputError, match=r"instances of shape \(5,\), but the files before it of \(2, 3\)"):
        opened(tmp_path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays_of(split=np.array([{"a": 1}] * 8, dtype=object)))
    with pytest.raises(InputError, match="split cannot be read"):
        opened(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert "split.npy" in archive.namelist()


def test_the_cache_holds_plain_values(tmp_path: Path, own_cache: Path) -> None:
    opened(write(tmp_path / "a.npz"))
    [entry] = own_cache.iterdir()
    assert json.loads((entry / "state.json").read_text())["state"]["labels"] == ["0", "1"] * 4


def test_instances_are_never_in_memory_together(tmp_path: Path) -> None:
    features = np.zeros((200_000, 64), dtype=np.float32)  # 51 MB
    sizes = np.full(1000, 200)
    np.savez(tmp_path / "a.npz", features=features, sizes=sizes, label=np.arange(1000) % 2)
    del features
    tracemalloc.start()
    try:
        data = opened(tmp_path / "a.npz", batch_size=8)
        instances = sum(len(batch.inputs) for batch in data.train_dataloader())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert instances == 100_000
    assert peak < 3 * stored.CHUNK < 51_200_000
