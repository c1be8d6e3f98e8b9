from collections import Counter

import pytest
import torch

from lightning_attn.data import TextProcessor, WordProcessor
from lightning_attn.errors import InputError


def fitted(texts, **arguments) -> WordProcessor:
    processor = WordProcessor(**arguments)
    processor.fit(texts)
    return processor


def test_vocabulary_is_by_frequency_then_alphabet() -> None:
    words = ["b", "a", "c", "c", "d", "a", "c", "e"]
    counts = Counter(words)
    expected = sorted(counts, key=lambda word: (-counts[word], word))
    assert fitted([words]).vocabulary == ["<pad>", "<unk>", "<s>", "</s>", *expected]
    assert fitted([" ".join(words)]).vocabulary == fitted([words]).vocabulary


def test_minimum_frequency_and_maximum_size_bound_the_vocabulary() -> None:
    words = ["a"] * 3 + ["b"] * 2 + ["c"]
    assert fitted([words], min_frequency=2).vocabulary[4:] == ["a", "b"]
    assert fitted([words], max_size=5).vocabulary[4:] == ["a"]
    with pytest.raises(InputError, match="max_size above 4"):
        WordProcessor(max_size=4)


def test_given_words_are_kept_whole() -> None:
    processor = fitted([["(good)", "3,000", "U.S.", "a b"]], lowercase=False)
    encoded = processor.encode([["a b", "(good)", "U.S.", "never-seen!"]])
    assert processor.tokens(encoded.ids) == ["<s>", "a b", "(good)", "U.S.", "<unk>", "</s>"]
    assert encoded.words.tolist() == [-1, 0, 1, 2, 3, -1]
    assert encoded.special.tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I didn't like it.", "i did n't like it ."),
        ("It\u2019s well-made... (5/10)", "it 's well-made ... ( 5 / 10 )"),
        ('Yes!<br /><br />3,000 of them; can\'t say "no"', 'yes ! 3,000 of them ; ca n\'t say " no "'),
        ("caf\u00e9 \u6620\u753b \U0001f600", "caf\u00e9 \u6620\u753b \U0001f600"),
    ],
)
def test_a_raw_sentence_is_split_near_the_way_of_the_treebank(text: str, words: str) -> None:
    processor = fitted([text])
    ids = processor.encode([text]).ids
    assert " ".join(processor.tokens(ids)[1:-1]) == words


def test_surface_shows_unknown_words_as_they_were_written() -> None:
    processor = fitted(["the film"])
    text = "The FILM wasn't Unheard-of!"
    assert processor.surface(text) == ["<s>", "The", "FILM", "was", "n't", "Unheard-of", "!", "</s>"]
    assert len(processor.surface(text)) == len(processor.encode([text]).ids)
    assert processor.surface(["The", "x y"]) == ["<s>", "The", "x y", "</s>"]


def test_a_long_text_loses_its_end_and_is_counted() -> None:
    processor = fitted([["a"] * 9], max_length=5)
    encoded = processor.encode([["a"] * 9, ["a"] * 3, ["a"] * 4])
    assert encoded.truncated == 2
    assert encoded.offsets.tolist() == [0, 5, 10, 15]
    assert processor.tokens(encoded.ids[:5]) == ["<s>", "a", "a", "a", "</s>"]
    assert len(processor.surface("a a a a a a")) == 5


def test_boundaries_may_be_left_out() -> None:
    encoded = fitted([["a", "b"]], boundaries=False).encode([["a"], ["b", "a"]])
    assert encoded.ids.tolist() == [4, 5, 4]
    assert not encoded.special.any()
    assert encoded.words.tolist() == [0, 0, 1]


def test_state_of_plain_values_makes_the_same_processor(tmp_path) -> None:
    processor = fitted(["Good films, bad films"], lowercase=False, max_length=7)
    torch.save(processor.state(), tmp_path / "state.pt")
    again = TextProcessor.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    text = "Good plays, bad films"
    assert again.encode([text]).ids.tolist() == processor.encode([text]).ids.tolist()
    assert again.settings() == processor.settings()
    assert (again.vocabulary_size, again.pad_id, again.replacement_id) == (len(processor.vocabulary), 0, 1)


def test_an_unknown_kind_of_processor_is_named() -> None:
    with pytest.raises(InputError, match=r"'MyProcessor'.*WordProcessor"):
        TextProcessor.from_state({"type": "MyProcessor"})


def test_batch_of_raw_sentences() -> None:
    processor = fitted(["a good film"])
    batch = processor.batch(["a film", "good"], queries=["film", "a good"])
    assert batch.inputs.tolist() == [
        [2, *processor.encode(["a film"]).ids[1:-1], 3],
        [2, processor.encode(["good"]).ids[1], 3, 0],
    ]
    assert batch.index.tolist() == [0, 1]
    assert batch.query_valid is not None
    assert batch.query_valid.sum(1).tolist() == [3, 4]
    with pytest.raises(InputError, match="Text 2 of 2 is empty"):
        processor.batch(["a", "  "])


def test_fitting_a_copy_leaves_the_original() -> None:
    processor = WordProcessor()
    processor.unfitted().fit(["a"])
    assert processor.vocabulary == []
