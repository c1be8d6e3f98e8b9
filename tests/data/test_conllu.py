"""CoNLL-U: what is read, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_attn.data.conllu import Parse, read_conllu
from lightning_attn.errors import InputError
from tests.helpers.planted_heads import CONLLU

pytest.importorskip("conllu", reason="reading CoNLL-U needs conllu, which is not installed")


def read(folder: Path, content: str) -> list[Parse]:
    (folder / "some.conllu").write_text(content, encoding="utf-8")
    return read_conllu(folder / "some.conllu")


def word(number: int, form: str, head: int, relation: str = "dep", misc: str = "_") -> str:
    return f"{number}\t{form}\t_\tX\t_\t_\t{head}\t{relation}\t_\t{misc}\n"


def test_words_know_their_letters_and_what_they_depend_on(tmp_path: Path) -> None:
    first, second, third = read(tmp_path, CONLLU)
    assert first.text == "the red dogs don't see cats."
    letters = [first.text[slice(*span)] for span in first.spans if span is not None]
    assert letters == ["the", "red", "dogs", "do", "n't", "see", "cats", "."]
    assert first.heads == [2, 2, 5, 5, 5, -1, 5, 5]
    assert first.relations == ["det", "amod", "nsubj", "aux", "advmod", "root", "obj", "punct"]
    assert second.text == "a big cat slept"  # the empty node 3.1 is left out
    assert second == third


def test_words_that_a_multiword_token_does_not_spell_have_no_letters(tmp_path: Path) -> None:
    lines = (
        "1-2\tdu\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No\n" + word(1, "de", 3) + word(2, "le", 3) + word(3, ",", 0, "root")
    )
    (parse,) = read(tmp_path, lines)
    assert parse.text == "du,"
    assert parse.spans == [None, None, (2, 3)]


def test_the_space_after_a_multiword_token_is_its_own(tmp_path: Path) -> None:
    lines = (
        "1-2\tcannot\t_\t_\t_\t_\t_\t_\t_\t_\n" + word(1, "can", 0, "root") + word(2, "not", 1, misc="SpaceAfter=No")
    )
    (parse,) = read(tmp_path, lines + word(3, "go", 1))
    assert parse.text == "cannot go"
    assert parse.spans == [(0, 3), (3, 6), (7, 9)]


def test_other_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "windows.conllu").write_bytes(b"\xef\xbb\xbf" + CONLLU.replace("\n", "\r\n").encode())
    assert read_conllu(tmp_path / "windows.conllu") == read(tmp_path, CONLLU)


@given(st.lists(st.tuples(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=4), st.booleans())))
def test_any_words_are_where_their_letters_are(tmp_path_factory: pytest.TempPathFactory, words: list) -> None:
    words = [*words, ("end", True)]
    lines = [
        word(number, form, number - 1, "root" if number == 1 else "dep", "_" if space else "SpaceAfter=No")
        for number, (form, space) in enumerate(words, 1)
    ]
    (parse,) = read(tmp_path_factory.mktemp("any"), "".join(lines))
    assert [parse.text[slice(*span)] for span in parse.spans if span is not None] == [form for form, _ in words]
    assert parse.text == "".join(form + " " * space for form, space in words).rstrip(" ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no sentence"),
        ("# text = a\n\n\n", "holds no sentence"),
        (word(1, "a", 0) + "2\tb\t_\tX\n", "Line 2 of .* has 4 columns where CoNLL-U has 10: '2"),
        ("# text = a\n\n" + word(1, "a", 0) + "\nb\n", "Line 5 of .* is no line of CoNLL-U .*: 'b'"),
        (word(1, "a", 0) + word(2, "b", 1).replace("2", "two", 1), r"Line 2 of .* \(.*'two' is not a valid ID\)"),
        (word(1, "a", 0) + word(3, "b", 1), "Line 2 of .* should have the word number 2"),
        (word(1, "a", 0) + word(1, "b", 1), "Line 2 of .* should have the word number 2"),
        (word(1, "a", 0) + word(2, "b", 7), "Line 2 of .* depends on the word 7, which is no other of .* 2 words"),
        (word(1, "a", 1), "Line 1 of .* depends on the word 1"),
        (word(1, "a", 0).replace("\t0\t", "\t_\t"), "Line 1 of .* has no head or no relation"),
        (word(1, "a", 0, "_"), "Line 1 of .* has no head or no relation"),
        (word(1, "a", 0) + "1-2\ta\t_\t_\t_\t_\t_\t_\t_\t_\n" + word(2, "b", 1), "Line 2 of .* joins words"),
        ("1-3\ta\t_\t_\t_\t_\t_\t_\t_\t_\n" + word(1, "a", 0), "Line 1 of .* joins words"),
    ],
)
def test_broken_files_are_named_with_the_line(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path, content)


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.conllu").write_bytes(word(1, "café", 0).encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.conllu is not UTF-8"):
        read_conllu(tmp_path / "latin.conllu")


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "conllu", None)
    with pytest.raises(InputError, match="needs the package conllu: pip install conllu"):
        read(tmp_path, CONLLU)


@pytest.mark.skipif("LIGHTNING_ATTN_DATA" not in os.environ, reason="LIGHTNING_ATTN_DATA does not say where data are")
def test_english_ewt_reads_as_its_texts() -> None:
    path = Path(os.environ["LIGHTNING_ATTN_DATA"]) / "ud_english_ewt" / "en_ewt-ud-dev.conllu"
    prefix = "# text = "
    texts = [line[len(prefix) :].rstrip("\n") for line in path.open(encoding="utf-8") if line.startswith(prefix)]
    parses = read_conllu(path)
    assert [parse.text for parse in parses] == texts
    assert len(parses) == 2001
    assert all(span is not None for parse in parses for span in parse.spans)
