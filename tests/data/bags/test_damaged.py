"""Files that were damaged, in every format: one sentence, or bags; never anything else."""

import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_attn.data.bags import BagArrayDataModule, BagTableDataModule, h5_watch
from lightning_attn.errors import InputError

MUTATIONS = 200
VALUES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"nan,", b'"""\n', b"\x80\x81")


def whole(path: Path) -> None:
    """A good file of 12 bags."""
    sizes = np.arange(12) % 3 + 1
    bag = np.repeat(np.arange(12), sizes)
    values = np.random.default_rng(0).normal(size=len(bag)).round(3)
    if path.suffix in (".npz", ".h5"):
        arrays = {"features": values[:, None], "sizes": sizes, "label": np.array(["no", "yes"] * 6), "key": values > 0}
        if path.suffix == ".npz":
            np.savez(path, **arrays)
            return
        h5py = pytest.importorskip("h5py", reason="reading .h5 needs h5py, which is not installed")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                # strings of fixed length: on damaged ones of any length, HDF5 itself may never return
                file[name] = array.astype("S") if array.dtype.kind == "U" else array
        return
    rows = {"bag": [f"b{number}" for number in bag], "feature": values, "label": np.array(["no", "yes"])[bag % 2]}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(rows), path, row_group_size=5)
    else:
        lines = [",".join(map(str, row)) for row in zip(*rows.values(), strict=True)]
        path.write_text("\n".join([",".join(rows), *lines]))


def mutated(content: bytes, seed: int) -> bytes:
    """Bytes exchanged, left out, added, or the end cut off."""
    generator = random.Random(seed)
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5, 20])):
        place = generator.randrange(len(changed))
        kind = seed % 5
        if kind == 0:
            changed[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del changed[place : place + generator.randrange(1, 20)]
        elif kind == 2:
            changed[place:place] = generator.randbytes(generator.randrange(1, 9))
        elif kind == 3:
            changed[place : place + 4] = generator.choice(VALUES)
        else:
            changed = changed[: place + 1]
    return bytes(changed)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz", "a.h5"])
def test_a_damaged_file_gives_bags_or_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole(path)
    content = path.read_bytes()
    sentences = []
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(content, seed))
        data = (BagArrayDataModule if path.suffix in (".npz", ".h5") else BagTableDataModule)(path, val_share=0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                data.prepare_data()
                data.setup()
                assert len(data.dataset("train").features)
        except InputError as error:
            sentences.append(str(error))
    assert len(sentences) > MUTATIONS // 2
    assert all(len(sentence.splitlines()) == 1 for sentence in sentences)
    assert all(str(path) in sentence or "bag" in sentence for sentence in sentences)


def test_strings_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    text = pa.array([b"b0", b"\xff", b"b2"]).view(pa.string())
    table = pa.table({"bag": text, "feature": [1.0, 2.0, 3.0], "label": ["x", "y", "x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as \.parquet \(.*UTF8"):
        BagTableDataModule(tmp_path / "a.parquet").prepare_data()


def test_an_h5_file_cannot_read_another(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="reading .h5 needs h5py, which is not installed")
    whole(tmp_path / "other.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sizes"], file["label"] = np.ones(24, dtype=np.int64), np.arange(24) % 2
        file["features"] = h5py.ExternalLink("other.h5", "/features")
    with pytest.raises(InputError, match=r"a\.h5: features stands in another file; store its values in this one"):
        BagArrayDataModule(tmp_path / "a.h5").prepare_data()


def test_sizes_that_a_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="reading .h5 needs h5py, which is not installed")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["label"] = np.zeros((4, 1)), np.zeros(4)
        file.create_dataset("sizes", (1 << 50,), np.int64, chunks=(1 << 20,))
    with pytest.raises(InputError, match=r"damaged: sizes has the shape \(1125899906842624,\), more than the file can"):
        BagArrayDataModule(tmp_path / "a.h5").prepare_data()


def test_a_file_whose_reading_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py", reason="reading .h5 needs h5py, which is not installed")
    monkeypatch.setattr(h5_watch, "PATIENCE", 5.0)
    shutil.copy(Path(__file__).with_name("hanging.h5"), tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"a\.h5 is damaged: reading it does not end"):
        BagArrayDataModule(tmp_path / "a.h5", cache_dir=tmp_path / "cache").prepare_data()


def test_a_file_whose_reading_ends_the_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5_watch, "_READER", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(InputError, match=r"a\.h5 is damaged: reading it ends the process \(signal 9\)"):
        h5_watch.watch_h5(tmp_path / "a.h5")
