import gzip
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, nbinom

from lightning_attn.data.bags import (
    MNIST,
    BagDataModule,
    Conjunction,
    Digits,
    ExpressionCounts,
    FourBags,
    GaussianClusters,
    MotifSequences,
    Presence,
    Sentences,
)
from lightning_attn.data.bags.modalities.base import divide, owned
from lightning_attn.errors import InputError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, count: int = 120, size: int = 6) -> None:
    generator = np.random.default_rng(0)
    for images, labels, number in ((NAMES[0], NAMES[1], count), (NAMES[2], NAMES[3], count // 2)):
        digits = np.arange(number) % 10
        pixels = generator.integers(256, size=(number, size, size))
        pixels[:, 0, 0] = digits  # so that an image tells its digit
        (folder / f"{images}.gz").write_bytes(gzip.compress(idx(pixels)))
        (folder / labels).write_bytes(idx(digits))


@given(st.integers(0, 50), st.integers(2, 30))
def test_all_content_belongs_to_exactly_one_split(seed: int, width: int) -> None:
    content = np.random.default_rng(seed).integers(0, 5, size=(200, width))
    masks = [owned(content, split) for split in ("train", "val", "test")]
    assert (np.sum(masks, axis=0) == 1).all()


def test_half_of_all_content_is_for_training() -> None:
    content = np.array(list(itertools.product(range(6), repeat=5)))
    assert owned(content, "train").mean() == pytest.approx(0.5, abs=0.02)
    assert owned(content, "test").mean() == pytest.approx(0.25, abs=0.02)


def test_too_little_content_for_three_splits_is_said() -> None:
    data = BagDataModule(Presence(), MotifSequences(motifs=2, length=4, motif_length=4))
    with pytest.raises(
        InputError, match=r"^There are too few different instances to have others in each split: .* longer"
    ):
        data.setup()


def test_pools_divide_every_label_alike() -> None:
    labels = np.repeat(np.arange(4), [100, 50, 10, 5])
    parts = divide(labels, seed=0)
    assert sorted(np.concatenate([*parts.values()]).tolist()) == [*range(165)]
    assert np.bincount(labels[parts["train"]]).tolist() == [60, 30, 6, 3]
    assert np.bincount(labels[parts["test"]]).tolist() == [20, 10, 2, 1]
    assert divide(labels, seed=1)["train"].tolist() != parts["train"].tolist()


def test_gaussian_likelihood_is_scipys() -> None:
    modality = GaussianClusters(clusters=3, dim=4)
    features = modality.draw(np.array([0, 1, 2, 2]), "train", seed=5)
    found = modality.log_likelihood(features, seed=5)
    expected = np.stack([multivariate_normal(centre).logpdf(features) for centre in modality.centres(5)], axis=1)
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1], atol=1e-9)


def test_the_distance_of_centres_is_the_one_asked_for() -> None:
    modality = GaussianClusters(clusters=200, dim=20, distance=5.0)
    centres = modality.centres(0)
    squared = ((centres[:, None] - centres) ** 2).sum(axis=-1)
    assert np.sqrt(squared[np.triu_indices(200, 1)].mean()) == pytest.approx(5.0, rel=0.05)


def test_expression_counts_have_the_mean_and_variance_of_the_negative_binomial() -> None:
    modality = ExpressionCounts(types=2, genes=8, markers=2, dispersion=0.5)
    kinds = np.repeat([0, 1], 4000)
    counts = np.expm1(modality.draw(kinds, "train", seed=0))
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    for kind, mean in enumerate(modality.means(0)):
        own = counts[kinds == kind]
        np.testing.assert_allclose(own.mean(axis=0), mean, rtol=0.1)
        np.testing.assert_allclose(own.var(axis=0), mean + 0.5 * mean**2, rtol=0.3)
    ratio = modality.means(0)[0] / modality.means(0)[1]
    assert set(np.unique(np.rint(ratio * 36)).tolist()) <= {6, 36, 216}  # a sixth, one and six times as high


def test_expression_likelihood_is_scipys() -> None:
    modality = ExpressionCounts(types=2, genes=3, markers=1)
    features = modality.draw(np.array([0, 1]), "train", seed=0).astype(np.float32)
    counts = np.rint(np.expm1(features))
    for kind, means in enumerate(modality.means(0)):
        expected = [
            sum(nbinom.logpmf(c, 2.0, 2.0 / (2.0 + m)) for c, m in zip(row, means, strict=True)) for row in counts
        ]
        np.testing.assert_allclose(modality.log_likelihood(features, 0)[:, kind], expected, rtol=1e-6)


def test_every_sequence_holds_the_motif_of_its_kind_somewhere() -> None:
    modality = MotifSequences(motifs=3, length=30, motif_length=7)
    kinds = np.arange(300) % 3
    texts = ["".join(map(str, row)) for row in modality.letters(kinds, "train", seed=0)]
    motifs = ["".join(map(str, row)) for row in modality.motif(0)]
    assert all(motifs[kind] in text for kind, text in zip(kinds, texts, strict=True))
    places = {text.index(motifs[kind]) for kind, text in zip(kinds, texts, strict=True)}
    assert places == set(range(24))
    one_hot = modality.draw(kinds[:5], "train", seed=0)
    assert one_hot.shape == (5, 30, 4)
    assert (one_hot.sum(axis=-1) == 1).all()


def test_motifs_mutate_at_the_rate_asked_for() -> None:
    modality = MotifSequences(motifs=2, length=20, motif_length=20, mutation=0.25)
    letters = modality.letters(np.zeros(2000, dtype=int), "train", seed=0)
    assert (letters != modality.motif(0)[0]).mean() == pytest.approx(0.25, abs=0.02)


def test_numbers_of_words_are_counted() -> None:
    kinds = np.zeros(20, dtype=int)
    letters = MotifSequences(length=12).letters(kinds, "val", seed=3)
    found = MotifSequences(length=12, words=2).draw(kinds, "val", seed=3)
    assert found.shape == (20, 16)
    for row, counts in zip(letters.tolist(), found, strict=True):
        expected = np.zeros(16)
        for first, second in itertools.pairwise(row):
            expected[4 * first + second] += 1
        assert counts.tolist() == expected.tolist()


def test_motif_likelihood_is_the_share_of_draws() -> None:
    modality = MotifSequences(motifs=2, length=3, motif_length=2, mutation=0.3)
    sequences = np.array(list(itertools.product(range(4), repeat=3)))
    likelihood = np.exp(modality.log_likelihood(np.eye(4)[sequences], seed=0))
    for kind, motif in enumerate(modality.motif(0)):
        expected = np.zeros(64)
        for place, (first, second), other in itertools.product(
            range(2), itertools.product(range(4), repeat=2), range(4)
        ):
            text = [first, second, other] if place == 0 else [other, first, second]
            chance = np.prod(
                [0.7 if letter == wanted else 0.1 for letter, wanted in zip((first, second), motif, strict=True)]
            )
            expected[16 * text[0] + 4 * text[1] + text[2]] += chance / 4 / 2
        np.testing.assert_allclose(likelihood[:, kind] / likelihood[:, kind].sum(), expected, rtol=1e-9)


def test_one_digit_is_a_and_one_is_b() -> None:
    data = BagDataModule(FourBags(), Digits((3, 8)), train_size=40, val_size=8, test_size=8)
    data.setup()
    assert data.modality.kind_names == ["3", "8", "0", "1", "2", "4", "5", "6", "7", "9"]
    from sklearn.datasets import load_digits

    label_of = {
        image.astype(np.float32).tobytes(): label for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }
    train = data.dataset("train")
    for features, kind in zip(train.features, train.kinds, strict=True):
        assert str(label_of[(features * 16).tobytes()]) == data.modality.kind_names[kind]
    assert data.schema.feature_shape == (1, 8, 8)
    assert train.features.max() == 1


def test_mnist_is_read_from_its_files(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = BagDataModule(Presence(), MNIST(tmp_path), train_size=40, val_size=10, test_size=10)
    data.setup()
    assert "not the published files of MNIST; A is 9, B is 7" in data.describe()
    for split, pool in (("train", 100), ("val", 20), ("test", 60)):
        found = data.dataset(split)
        assert len(found.bags.features) == pool  # bags share the images
        digit = np.rint(found.features[:, 0, 0, 0] * 255)
        assert ((digit == 9) == (found.kinds == 0)).all()
        assert ((digit == 7) == (found.kinds == 1)).all()
    assert data.schema.feature_shape == (1, 6, 6)
    train, val = ({row.tobytes() for row in data.dataset(split).bags.features} for split in ("train", "val"))
    assert not train & val


def test_the_real_mnist(real_data: Path) -> None:
    data = BagDataModule(Conjunction(), MNIST(real_data / "mnist"), train_size=20, val_size=20, test_size=20)
    data.setup()
    assert "MNIST (the published files; A is 9, B is 7)" in data.describe()
    sizes = [len(data.dataset(split).bags.features) for split in data.splits]
    assert sizes == [49_999, 10_001, 10_000]  # a sixth of each digit, rounded
    assert data.dataset("test")[[0, 1]].inputs.shape[1:] == (1, 28, 28)


def packed(content: bytes) -> bytes:
    """With no time in it: the processes of a run must agree on their tests."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (NAMES[0], None, "There is no train-images-idx3-ubyte.gz in .*: path should be the folder with the four files"),
        (NAMES[0], packed(b"abc" * 99), "no idx file of bytes in 3 dimensions: it begins with 61 62 63 61"),
        (NAMES[0], packed(idx(np.zeros((5, 2, 2))))[:-9], "train-images-idx3-ubyte.gz is damaged: it cannot be"),
        (NAMES[0], packed(idx(np.zeros((5, 2, 2)))[:-1]), r"should hold 20 values \(5 x 2 x 2\), but holds 19"),
        (NAMES[2], packed(idx(np.zeros((5, 6, 6)))), "holds 5 images, but .*t10k-labels-idx1-ubyte 60 labels"),
        (NAMES[3], packed(idx(np.full(60, 11))), "holds the label 11; labels should be from 0 to 9"),
    ],
    ids=["missing", "text", "cut", "short", "counts", "label"],
)
def test_broken_files_of_mnist_are_named(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / f"{name}.gz").unlink(missing_ok=True)
    if content is not None:
        (tmp_path / f"{name}.gz").write_bytes(content)
    with pytest.raises(InputError, match=problem):
        BagDataModule(Presence(), MNIST(tmp_path), train_size=20).setup()


def write_sentences(path: Path, repeat: int = 30) -> None:
    topics = {"film": "plot actor scene script", "drug": "dose patient rash liver", "weather": "rain wind snow cloud"}
    rows = ["text,label"]
    for number, (topic, words) in itertools.product(range(repeat), topics.items()):
        first, second, third = np.random.default_rng(number).permutation(words.split())[:3]
        rows.append(f"the {first} and the {second} of {third} number {number},{topic}")
    path.write_text("\n".join([*rows, rows[1]]) + "\n")


def test_sentences_are_vectors_that_tell_their_label(tmp_path: Path) -> None:
    write_sentences(tmp_path / "s.csv")
    modality = Sentences(tmp_path / "s.csv", letters=["drug", "film"], dim=6)
    data = BagDataModule(Conjunction(), modality, train_size=60)
    data.setup()
    assert modality.kind_names == ["drug", "film", "weather"]
    assert "sentences (A is drug, B is film; vectors from latent semantic analysis)" in data.describe()
    train, test = data.dataset("train"), data.dataset("test")
    assert data.schema.feature_shape == (6,)
    assert [len(data.dataset(split).bags.features) for split in data.splits] == [54, 18, 18]  # the double is left out
    np.testing.assert_allclose(np.linalg.norm(train.features, axis=1), 1, rtol=1e-5)
    centres = np.stack([train.features[train.kinds == kind].mean(axis=0) for kind in range(3)])
    assert ((test.features @ centres.T).argmax(axis=1) == test.kinds).mean() > 0.9


def test_sentences_take_vectors_from_a_file(tmp_path: Path) -> None:
    write_sentences(tmp_path / "s.csv")
    (tmp_path / "v.txt").write_text("plot 1 0\nactor 1 0\nscene 1 0\nscript 1 0\ndose 0 2\nrash 0 1\n")
    modality = Sentences(tmp_path / "s.csv", letters=["drug", "film"], vectors=tmp_path / "v.txt")
    data = BagDataModule(Presence(), modality, train_size=20)
    data.setup()
    train = data.dataset("train")
    np.testing.assert_allclose(train.features[train.kinds == 1], [[1, 0]] * (train.kinds == 1).sum(), atol=1e-6)
    assert not train.features[train.kinds == 2].any()
    assert (train.features[train.kinds == 0][:, 0] == 0).all()


def test_sentences_of_files_keep_their_splits(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write_sentences(tmp_path / f"{split}.csv", repeat=10)
        text = (tmp_path / f"{split}.csv").read_text()
        (tmp_path / f"{split}.csv").write_text(text.replace("number", f"{split} number"))
    (tmp_path / "test.csv").open("a").write((tmp_path / "train.csv").read_text().splitlines()[1] + "\n")
    modality = Sentences(tmp_path, letters=["drug", "film"], dim=4)
    data = BagDataModule(Presence(), modality, train_size=20)
    data.setup()
    assert [len(data.dataset(split).bags.features) for split in data.splits] == [30, 30, 30]


def test_real_sentences(real_data: Path) -> None:
    modality = Sentences(real_data / "sst" / "sst_dataset.csv", letters=["1", "0"], dim=20)
    with pytest.raises(InputError, match="needs 3 kinds"):
        BagDataModule(Conjunction(), modality).setup()
    data = BagDataModule(Presence(), modality, train_size=40)
    data.setup()
    assert sum(len(data.dataset(split).bags.features) for split in data.splits) > 9_500


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Digits((9,)), "letters of two different kinds, not \\['9'\\]"),
        (lambda: Digits((9, 9)), "letters of two different kinds"),
        (lambda: Digits((9, 10)), "letters from 0 to 9, not \\[9, 10\\]"),
        (lambda: GaussianClusters(dim=0), "GaussianClusters needs dim above 0, not 0"),
        (lambda: ExpressionCounts(genes=3, markers=4), "at most as many markers as genes, not 4 of 3"),
        (lambda: MotifSequences(length=5, motif_length=6), "motif_length of at most length, not 6 of 5"),
        (lambda: MotifSequences(mutation=0.9), "mutation from 0 to 0.75, not 0.9"),
        (lambda: MotifSequences(words=9), "words from 1 to 6"),
        (lambda: MotifSequences(motifs=5, motif_length=1).motif(0), "There are no 5 different motifs of length 1"),
        (lambda: MotifSequences(words=2).log_likelihood(np.zeros((1, 16)), 0), "likelihood for one-hot features only"),
        (lambda: Sentences("x", letters=["a"]), "Sentences needs letters of two different kinds"),
        (lambda: Sentences("x", letters=["a", "b"]).names(), "There is no table of sentences at x"),
    ],
)
def test_modalities_refuse_what_they_cannot_do(make, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make()


def test_sentences_say_what_their_table_lacks(tmp_path: Path) -> None:
    write_sentences(tmp_path / "s.csv")
    for arguments, problem in (
        ({"letters": ["drug", "music"]}, "Sentences has no kind 'music'; it has drug, film, weather"),
        ({"letters": ["drug", "film"], "dim": 500}, "cannot have a dim of 500: there are 54 training sentences"),
        ({"letters": ["drug", "film"], "label": "topic"}, "has no column 'topic'"),
    ):
        with pytest.raises(InputError, match=problem):
            BagDataModule(Presence(), Sentences(tmp_path / "s.csv", **arguments)).setup()
