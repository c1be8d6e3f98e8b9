import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from lightning_attn.data import Examples, HuggingFaceProcessor, WordProcessor
from lightning_attn.data.examples import CHUNK, encode_split
from lightning_attn.errors import InputError


def fitted(texts, **arguments) -> WordProcessor:
    processor = WordProcessor(**arguments)
    processor.fit(texts)
    return processor


def test_evidence_follows_its_words_also_where_texts_are_cut() -> None:
    texts = [["a", "b", "c"], ["d"], ["e", "f"]]
    examples = Examples(texts, [0, 1, 0], "here", evidence=[[0.1, 0.2, 0.3], [0.4], [0.5, float("nan")]])
    arrays, truncated = encode_split(examples, fitted(texts, max_length=4))
    expected = [np.nan, 0.1, 0.2, np.nan, np.nan, 0.4, np.nan, np.nan, 0.5, np.nan, np.nan]
    np.testing.assert_allclose(arrays["evidence"], expected, rtol=1e-6)
    assert truncated == 1


def test_every_subword_gets_the_evidence_of_its_word() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "un": 1, "##kind": 2, "film": 3, "!": 4}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    state = {"name_or_path": "", "max_length": 9, "tokenizer": tokenizer.to_str()}
    processor = HuggingFaceProcessor.restored({**state, "special": {"pad": None, "unk": 0, "mask": None}})
    examples = Examples([["unkind!", "film"], ["film"]], [0, 1], "here", evidence=[[1.0, 0.0], [0.5]])
    arrays, _ = encode_split(examples, processor)
    assert arrays["ids"].tolist() == [1, 2, 4, 3, 3]
    assert arrays["evidence"].tolist() == [1, 1, 1, 0, 0.5]


def test_lots_of_texts_come_out_as_one() -> None:
    texts = [["w"] * (1 + row % 5) for row in range(2 * CHUNK + 7)]
    arrays, _ = encode_split(Examples(texts, [0] * len(texts), "here"), fitted(texts, boundaries=False))
    assert np.diff(arrays["offsets"]).tolist() == [len(text) for text in texts]
    assert len(arrays["ids"]) == arrays["offsets"][-1]


@pytest.mark.parametrize(
    ("lines", "unit", "place"), [(None, "line", "row 2"), ([3, 8], "line", "line 8"), ([3, 8], "row", "row 8")]
)
def test_a_bad_example_is_named_by_its_place(lines, unit: str, place: str) -> None:
    examples = Examples(["a", "<br />"], [0, 1], "x.csv", lines=lines, unit=unit)
    with pytest.raises(InputError, match=rf"x\.csv, {place}: the text is empty"):
        encode_split(examples, fitted(["a"], boundaries=False))
    asked = Examples(["a", "b"], [0, 1], "x.csv", queries=["a", " "], lines=lines, unit=unit)
    with pytest.raises(InputError, match=rf"x\.csv, {place}: the query is empty"):
        encode_split(asked, fitted(["a"]))
