"""Words and subwords, by characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lightning_attn.attribution.heads import AlignedTexts, align
from lightning_attn.data.conllu import Parse, read_conllu
from lightning_attn.errors import InputError
from tests.helpers.planted_heads import CONLLU, save_tokenizer

RELATIONS = ("nsubj", "obj", "amod", "advmod")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer")).backend_tokenizer


@pytest.fixture(scope="module")
def parses(tmp_path_factory: pytest.TempPathFactory) -> list[Parse]:
    pytest.importorskip("conllu", reason="reading CoNLL-U needs conllu, which is not installed")
    path = tmp_path_factory.mktemp("parses") / "some.conllu"
    path.write_text(CONLLU)
    return read_conllu(path)


def test_a_token_belongs_to_the_word_it_begins_in(tokenizer: Tokenizer, parses: list[Parse]) -> None:
    aligned = align(parses, tokenizer, RELATIONS, max_length=32)
    first = slice(*aligned.texts.offsets[:2])
    # [CLS] the red dog ##s don ' t see cat ##s . [SEP]: "don" begins in "do", the rest of "don't" is that of "n't"
    assert aligned.words[first].tolist() == [-1, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, -1]
    assert aligned.arcs.tolist() == [[0, 2, 1, 2], [0, 0, 2, 5], [0, 3, 4, 5], [0, 1, 6, 5], [1, 2, 1, 2], [1, 0, 2, 3]]
    assert (len(aligned), aligned.repeated, aligned.too_long, aligned.unaligned) == (2, 1, 0, 0)


def test_a_batch_holds_the_dependencies_of_its_rows(tokenizer: Tokenizer, parses: list[Parse]) -> None:
    part = align(parses, tokenizer, RELATIONS, max_length=32).batch(np.array([1, 0]))
    assert part.words[0].tolist() == [-1, 0, 1, 2, 3, -1, *[-1] * 7]
    assert part.words[1, :4].tolist() == [-1, 0, 1, 2]
    assert part.row.tolist() == [1, 1, 1, 1, 0, 0]
    assert part.dependent.tolist() == [1, 2, 4, 6, 1, 2]
    assert part.head.tolist() == [2, 5, 5, 5, 2, 3]
    assert (part.batch.valid.sum(dim=1)).tolist() == [6, 13]


def test_relations_are_compared_whole(tokenizer: Tokenizer) -> None:
    parse = Parse("cat see", [(0, 3), (4, 7)], [1, -1], ["nsubj:pass", "root"])
    assert len(align([parse], tokenizer, ["nsubj"], 32).arcs) == 0
    assert len(align([parse], tokenizer, ["nsubj:pass"], 32).arcs) == 1


def test_words_without_a_token_are_counted(tokenizer: Tokenizer) -> None:
    joined = Parse(
        "thered dog", [(0, 3), (3, 6), (7, 10)], [2, 2, -1], ["det", "amod", "root"]
    )  # "thered" is one [UNK]
    unspelled = Parse("du cat", [None, None, (3, 6)], [2, 2, -1], ["amod", "det", "root"])
    aligned = align([joined, unspelled], tokenizer, ["amod", "det"], 32)
    assert aligned.unaligned == 3
    assert aligned.arcs.tolist() == [[0, 1, 0, 2]]


def test_long_sentences_are_counted_and_too_many_refused(tokenizer: Tokenizer, parses: list[Parse]) -> None:
    aligned = align(parses, tokenizer, RELATIONS, max_length=12)
    assert (len(aligned), aligned.too_long) == (1, 1)
    with pytest.raises(InputError, match="All 2 sentences have more than 5 tokens"):
        align(parses, tokenizer, RELATIONS, max_length=5)


def bytes_tokenizer(trim: bool) -> Tokenizer:
    """Byte-level as RoBERTa's: a space belongs to the token after it; ``trim`` leaves it out of the offsets."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, trim_offsets=trim)
    made.post_processor = processors.ByteLevel(trim_offsets=trim)
    return made


def slow_words(parse: Parse, tokenizer: Tokenizer) -> list[int]:
    """For each token the word that holds its first letter that is no space, found by looking."""
    found = []
    for first, last in tokenizer.encode(parse.text).offsets:
        while first < last and parse.text[first] == " ":
            first += 1
        holding = [word for word, span in enumerate(parse.spans) if span is not None and span[0] <= first < span[1]]
        found.append(holding[0] if holding and first < last else -1)
    return found


@given(
    st.lists(
        st.lists(st.tuples(st.text("aé猫-'", min_size=1, max_size=3), st.booleans()), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_alignment_is_that_of_a_slow_reference(sentences: list, trim: bool) -> None:
    parses = []
    for words in sentences:
        text, spans = "", []
        for form, space in words:
            spans.append((len(text), len(text) + len(form)))
            text += form + " " * space
        parses.append(
            Parse(text.rstrip(" "), spans, [*range(1, len(words)), -1], ["dep"] * (len(words) - 1) + ["root"])
        )
    tokenizer = bytes_tokenizer(trim)
    aligned: AlignedTexts = align(parses, tokenizer, ["dep"], 1000)
    by_text = {parse.text: parse for parse in reversed(parses)}
    kept = [by_text[text] for text in dict.fromkeys(parse.text for parse in parses)]
    assert aligned.words.tolist() == [word for parse in kept for word in slow_words(parse, tokenizer)]
