"""Pairs of digits: what stands where, what is evidence, and that no image stands in two splits."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from lightning_attn.data.bags import MNIST, DigitPairsDataModule, Digits, PooledModality
from lightning_attn.data.bags.digit_pairs import INK, cut
from lightning_attn.errors import InputError

SIZES = {"train_size": 60, "val_size": 20, "test_size": 21}
SPLITS = ("train", "val", "test")


def opened(modality: Digits | MNIST | None = None, **arguments) -> DigitPairsDataModule:
    data = DigitPairsDataModule(modality, **{**SIZES, "patch": 2, **arguments})
    data.prepare_data()
    data.setup()
    return data


def pictures(data: DigitPairsDataModule, split: str) -> np.ndarray:
    """The pictures put together again by the places that the patches name, shape ``(B, rows * p, columns * p)``."""
    rows, columns = data.schema.grid
    batch = data.dataset(split)[range(len(data.dataset(split)))].padded()
    side = data.patch
    whole = np.full((len(batch), rows * side, columns * side), np.nan)
    for bag, patches in enumerate(batch.inputs.numpy()):
        for *pixels, row, column in patches:
            top, left = (round(row * rows) - 1) * side, (round(column * columns) - 1) * side
            whole[bag, top : top + side, left : left + side] = np.reshape(pixels, (side, side))
    return whole


def halves(data: DigitPairsDataModule, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right digit of each pair."""
    left, right = np.split(pictures(data, split), 2, axis=2)
    return left, right


def key(image: np.ndarray) -> bytes:
    """What an image is known by."""
    return image.astype(np.float32).tobytes()


def known_digits() -> dict[bytes, int]:
    """Which digit each image of scikit-learn shows."""
    found = load_digits()
    return {key(image / 16): int(label) for image, label in zip(found.images, found.target, strict=True)}


class Numbers(PooledModality):
    """Instances that are numbers, of as many kinds as there are names."""

    def __init__(self, kinds: int) -> None:
        super().__init__(("a", "b"))
        self.kinds = kinds

    def names(self) -> list[str]:
        """The first letters of the alphabet."""
        return list("abcd"[: self.kinds])

    def pool(self, split: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Two of each kind."""
        return np.zeros((2 * self.kinds, 5), dtype=np.float32), np.arange(2 * self.kinds) % self.kinds


@pytest.mark.parametrize("letters", [(3, 8), (0, 5)])
def test_one_digit_decides_and_the_other_is_of_another_class(letters: tuple[int, int]) -> None:
    data, known = opened(Digits(letters)), known_digits()
    sides = []
    for split in SPLITS:
        left, right = halves(data, split)
        batch = data.dataset(split)[range(len(left))].padded()
        evidence = batch.evidence.numpy().reshape(len(left), 4, 8)
        assert batch.special.sum() == 0
        for pair, label in enumerate(batch.target.tolist()):
            shown = [known[key(left[pair])], known[key(right[pair])]]
            (side,) = [place for place in (0, 1) if shown[place] in letters]
            sides.append(side)
            assert shown[side] == letters[label]
            ink = (left, right)[side][pair].reshape(4, 2, 4, 2).max(axis=(1, 3)) >= INK
            assert ink.any()
            assert np.array_equal(evidence[pair, :, 4 * side : 4 * side + 4], ink)
            assert not evidence[pair, :, 4 - 4 * side : 8 - 4 * side].any()
    assert 0.3 < np.mean(sides) < 0.7
    assert data.schema.class_names == tuple(map(str, letters))


def test_classes_are_equally_frequent_and_sides_tell_nothing() -> None:
    data = opened(train_size=2000)
    for split, count in (("train", 2000), ("val", 20), ("test", 21)):
        assert abs(int(data.dataset(split).labels.sum()) - count / 2) <= 0.5
    found = data.dataset("train")
    on_the_left = found.evidence.reshape(2000, 4, 8)[:, :, :4].any(axis=(1, 2))
    counts = [on_the_left[found.labels == label].mean() for label in (0, 1)]
    assert np.abs(np.subtract(counts, 0.5)).max() < 0.06  # 3.8 standard deviations
    assert abs(found.labels[:1000].mean() - 0.5) < 0.06, "classes are mixed, not one after the other"


def test_no_image_stands_in_two_splits() -> None:
    data = opened(train_size=800, val_size=300, test_size=300)
    seen = [{key(image) for image in np.concatenate(halves(data, split))} for split in SPLITS]
    assert all(not one & other for one, other in ((seen[0], seen[1]), (seen[0], seen[2]), (seen[1], seen[2])))


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others() -> None:
    first, again, other = opened(), opened(), opened(seed=1)
    for split in SPLITS:
        one, two, three = (data.dataset(split)[range(20)] for data in (first, again, other))
        assert np.array_equal(one.inputs, two.inputs)
        assert np.array_equal(one.target, two.target)
        assert not np.array_equal(one.inputs, three.inputs)
    assert not np.array_equal(first.dataset("train")[range(20)].inputs, first.dataset("val")[range(20)].inputs)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_cut_is_what_a_loop_cuts(rows: int, columns: int, patch: int, count: int) -> None:
    whole = np.arange(count * rows * columns * patch**2).reshape(count, rows * patch, columns * patch)
    patches, grid = cut(whole, patch)
    assert grid == (rows, columns)
    assert patches.shape == (count, rows * columns, patch**2)
    for picture in range(count):
        for row in range(rows):
            for column in range(columns):
                one = whole[picture, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
                assert np.array_equal(patches[picture, row * columns + column], one.ravel())


def idx_files(folder: Path, side: int = 28) -> None:
    """The four files, each digit with ten images in each part: its number as grey in a square, and a pixel of noise."""
    generator = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = np.arange(100, dtype=np.uint8) % 10
        images = np.zeros((100, side, side), dtype=np.uint8)
        images[:, 8:20, 8:20] = 130 + 10 * labels[:, None, None]
        images[np.arange(100), 0, generator.integers(side, size=100)] = generator.integers(1, 100, size=100)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
            (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))


def test_mnist_in_patches_of_4_has_98_of_them(tmp_path: Path) -> None:
    idx_files(tmp_path)
    data = opened(MNIST(tmp_path, letters=(3, 8)), patch=4)
    assert data.schema.grid == (7, 14)
    assert data.schema.feature_shape == (18,)
    batch = data.dataset("train")[range(60)]
    assert batch.packed
    assert batch.valid.shape == (60, 98)
    # The square of each digit covers 3 x 3 patches; the noise is too faint to be ink.
    assert batch.evidence.sum(dim=1).tolist() == [9] * 60
    left, right = (half[:, 10, 10] * 255 for half in halves(data, "train"))
    decisive = [grey for pair in zip(left, right, strict=True) for grey in pair if round(grey) in (160, 210)]
    assert [round(grey) for grey in decisive] == [160 + 50 * label for label in batch.target.tolist()]
    assert "7 x 14 patches of 4 x 4 pixels" in data.describe()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"patch": 0}, "patch of at least 1, not 0"),
        ({"train_size": 1}, "train_size of at least 2, not 1"),
        ({"val_size": 0}, "val_size of at least 1, not 0"),
        ({"batch_size": 0}, "batch_size of at least 1, not 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        DigitPairsDataModule(**arguments)


def test_patches_that_do_not_cover_the_images_are_refused() -> None:
    with pytest.raises(InputError, match="Patches of 3 x 3 pixels do not cover images of 8 x 8"):
        opened(patch=3)


@pytest.mark.parametrize(("kinds", "sentence"), [(2, "a third class"), (3, r"instances of shape \(5,\)")])
def test_what_has_no_images_or_no_distractor_is_refused(kinds: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        opened(Numbers(kinds))
