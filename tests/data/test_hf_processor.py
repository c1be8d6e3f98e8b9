from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lightning_attn.data import HuggingFaceProcessor, TextProcessor
from lightning_attn.errors import InputError

CORPUS = ["the film was unbelievably good", "the plot was not good at all", "unwatchable and unbelievable"] * 5


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory) -> Path:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=60, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    return save(tokenizer, tmp_path_factory.mktemp("wordpiece"), unk="[UNK]", pad="[PAD]", mask="[MASK]")


@pytest.fixture(scope="module")
def bytelevel(tmp_path_factory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return save(tokenizer, tmp_path_factory.mktemp("bytelevel"))


def save(tokenizer: Tokenizer, folder: Path, **special: str) -> Path:
    named = {f"{name}_token": token for name, token in special.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return folder


def fitted(folder: Path, **arguments) -> HuggingFaceProcessor:
    processor = HuggingFaceProcessor(str(folder), **arguments)
    processor.fit([])
    return processor


def test_special_tokens_are_flagged(wordpiece: Path) -> None:
    encoded = fitted(wordpiece).encode(["the film", "good"])
    first = slice(0, encoded.offsets[1])
    assert encoded.ids[first][[0, -1]].tolist() == [2, 3]
    assert encoded.special[first].tolist() == [True, *[False] * (encoded.offsets[1] - 2), True]
    assert (encoded.words[encoded.special] == -1).all()


@pytest.mark.parametrize("kind", ["wordpiece", "bytelevel"])
def test_each_subword_belongs_to_the_word_it_is_part_of(kind: str, request: pytest.FixtureRequest) -> None:
    processor = fitted(request.getfixturevalue(kind))
    words = ["the", "unwatchable", "film", "wasn't", "(good)", "at", "all"]
    encoded = processor.encode([words])
    pieces: dict[int, str] = {}
    for token, word in zip(encoded.ids.tolist(), encoded.words.tolist(), strict=True):
        if word >= 0:
            pieces[word] = pieces.get(word, "") + processor.tokens([token])[0].removeprefix("##").lstrip("\u0120")
    known = [word for word in range(len(words)) if "[UNK]" not in pieces[word]]
    assert sorted(pieces) == list(range(len(words)))
    assert len(known) >= 4
    assert [pieces[word] for word in known] == [words[word] for word in known]
    assert len(encoded.ids) > len(words)


@pytest.mark.parametrize("kind", ["wordpiece", "bytelevel"])
def test_words_and_the_string_they_make_give_the_same_tokens(kind: str, request: pytest.FixtureRequest) -> None:
    processor = fitted(request.getfixturevalue(kind))
    text = "the film was unbelievable"
    assert processor.encode([text]).ids.tolist() == processor.encode([text.split()]).ids.tolist()


def test_replacement_is_the_mask_token_or_else_the_next_best(wordpiece: Path, bytelevel: Path) -> None:
    assert fitted(wordpiece).replacement_id == 4
    assert fitted(wordpiece).pad_id == 0
    assert fitted(bytelevel).replacement_id == fitted(bytelevel).pad_id == 0


def test_a_long_text_loses_its_end_but_keeps_its_boundary(wordpiece: Path) -> None:
    encoded = fitted(wordpiece, max_length=4).encode(["the film was unbelievably good", "good"])
    assert encoded.truncated == 1
    assert encoded.offsets[1] == 4
    assert encoded.ids[3] == 3


def test_state_explains_a_raw_sentence_without_the_folder(wordpiece: Path, tmp_path: Path) -> None:
    processor = fitted(wordpiece, max_length=9)
    torch.save(processor.state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = TextProcessor.from_state({**state, "name_or_path": "gone"})
    batch = again.batch(["the film was good", "good"])
    assert torch.equal(batch.inputs, processor.batch(["the film was good", "good"]).inputs)
    assert again.replacement_id == 4
    assert again.vocabulary_size == processor.vocabulary_size


def test_surface_lines_up_with_the_tokens(wordpiece: Path) -> None:
    processor = fitted(wordpiece)
    surface = processor.surface("the unwatchable film")
    assert len(surface) == len(processor.encode(["the unwatchable film"]).ids)
    assert "".join(surface[1:-1]) == "theunwatchablefilm"


def test_changed_tokenizer_files_change_the_settings(wordpiece: Path, bytelevel: Path) -> None:
    first = HuggingFaceProcessor(str(wordpiece)).settings()
    assert first == HuggingFaceProcessor(str(wordpiece)).settings()
    assert first["files"] != HuggingFaceProcessor(str(bytelevel)).settings()["files"]


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer.*nothing"):
        fitted(tmp_path / "nothing")
