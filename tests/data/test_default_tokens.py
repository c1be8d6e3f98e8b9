import numpy as np
import pytest

from lightning_attn.data import DefaultTokens, SyntheticReviewsDataModule, TextProcessor, WordProcessor
from lightning_attn.errors import InputError

TEXTS = [["a", "good", "film"], ["bad"]]


def fitted(k: int = 3, **arguments) -> DefaultTokens:
    processor = DefaultTokens(k, WordProcessor(**arguments))
    processor.fit(TEXTS)
    return processor


@pytest.mark.parametrize("boundaries", [True, False])
def test_every_text_ends_with_the_same_special_tokens(boundaries: bool) -> None:
    processor = fitted(boundaries=boundaries)
    plain, encoded = processor.processor.encode(TEXTS), processor.encode(TEXTS)
    for row in range(len(TEXTS)):
        text = slice(encoded.offsets[row], encoded.offsets[row + 1] - 3)
        before = slice(*plain.offsets[row : row + 2])
        for name in ("ids", "special", "words"):
            assert np.array_equal(getattr(encoded, name)[text], getattr(plain, name)[before])
        end = slice(encoded.offsets[row + 1] - 3, encoded.offsets[row + 1])
        assert encoded.ids[end].tolist() == [processor.vocabulary_size - 3 + number for number in range(3)]
        assert encoded.special[end].all()
        assert (encoded.words[end] == -1).all()
    assert len(encoded) == 2
    assert len(processor.encode([])) == 0


def test_tokens_are_readable() -> None:
    processor = fitted(k=2)
    assert processor.tokens(processor.encode([TEXTS[1]]).ids) == ["<s>", "bad", "</s>", "<default 1>", "<default 2>"]
    assert processor.surface("Unseen") == ["<s>", "Unseen", "</s>", "<default 1>", "<default 2>"]


def test_a_checkpoint_restores_it() -> None:
    processor = fitted(lowercase=False)
    restored = TextProcessor.from_state(processor.state())
    assert isinstance(restored, DefaultTokens)
    assert restored.state() == processor.state()
    assert np.array_equal(restored.encode(TEXTS).ids, processor.encode(TEXTS).ids)


def test_texts_are_cut_before_the_default_tokens_come() -> None:
    processor = fitted(max_length=4)
    encoded = processor.encode([["a"] * 9])
    assert len(encoded.ids) == processor.max_length == 7
    assert encoded.truncated == 1


def test_any_text_data_take_it_and_the_schema_says_so() -> None:
    data = SyntheticReviewsDataModule(train_size=8, val_size=4, test_size=4, processor=DefaultTokens(5))
    data.setup()
    assert data.schema.default_tokens == 5
    assert data.schema.vocabulary_size == data.processor.processor.vocabulary_size + 5
    batch = data.dataset("train")[[0, 1, 2]]
    assert (batch.inputs >= data.schema.vocabulary_size - 5).sum(dim=1).tolist() == [5, 5, 5]


def test_none_is_refused() -> None:
    with pytest.raises(InputError, match="k of at least 1, not 0"):
        DefaultTokens(0)
