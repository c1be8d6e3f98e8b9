import numpy as np
import pytest

from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.data.synthetic import ADJECTIVES, ASPECTS, NEGATIONS, VERBS
from lightning_attn.errors import InputError

POLARITY = {word: side for words in (ADJECTIVES, VERBS) for side in (0, 1) for word in words[side]}


def opened(**arguments) -> SyntheticReviewsDataModule:
    data = SyntheticReviewsDataModule(**{"train_size": 300, "val_size": 50, "test_size": 50, **arguments})
    data.prepare_data()
    data.setup()
    return data


def reviews(data: SyntheticReviewsDataModule, split: str = "train"):
    part = data.dataset(split)
    for row in range(len(part)):
        batch = part[row]
        words = data.processor.tokens(batch.inputs[0, 1:-1].tolist())
        yield words, batch.evidence[0, 1:-1].tolist(), int(batch.target)


def test_the_marked_words_alone_decide_the_label() -> None:
    for words, evidence, label in reviews(opened()):
        turned = False
        verdicts = []
        for word, mark in zip(words, evidence, strict=True):
            if mark and word in NEGATIONS:
                turned = True
            elif mark:
                verdicts.append(POLARITY[word] ^ turned)
                turned = False
        assert verdicts
        assert set(verdicts) == {label}


def test_unmarked_sentiment_words_say_nothing_on_the_label() -> None:
    agree = [
        POLARITY[word] == label
        for words, evidence, label in reviews(opened(train_size=2000))
        for word, mark in zip(words, evidence, strict=True)
        if word in POLARITY and not mark
    ]
    assert len(agree) > 1000
    assert np.mean(agree) == pytest.approx(0.5, abs=0.05)


def test_no_distractors_and_no_negation_leave_plain_opinions() -> None:
    for words, evidence, label in reviews(opened(distractors=0.0, negation=0.0)):
        for word, mark in zip(words, evidence, strict=True):
            assert mark == (word in POLARITY)
            assert not mark or POLARITY[word] == label
            assert word not in NEGATIONS


def test_default_tokens_end_every_review_without_evidence() -> None:
    for words, evidence, _ in reviews(opened(default_tokens=3)):
        assert words[-3:] == ["<default1>", "<default2>", "<default3>"]
        assert evidence[-3:] == [0, 0, 0]


def test_label_noise_flips_training_labels_only() -> None:
    clean, noisy = opened(), opened(label_noise=0.1)
    assert (clean.dataset("train").labels != noisy.dataset("train").labels).sum() == 30
    assert (clean.dataset("val").labels == noisy.dataset("val").labels).all()
    assert (clean.dataset("train").ids == noisy.dataset("train").ids).all()


def test_seed_decides_and_splits_differ() -> None:
    assert list(reviews(opened())) == list(reviews(opened()))
    assert list(reviews(opened())) != list(reviews(opened(seed=1)))
    assert list(reviews(opened(), "val")) != list(reviews(opened(), "test"))


def test_classes_are_balanced_and_nothing_is_written(own_cache) -> None:
    data = opened()
    assert np.bincount(data.dataset("val").labels).tolist() == [25, 25]
    assert not own_cache.exists()
    assert set(ASPECTS) <= set(data.processor.state()["vocabulary"])


@pytest.mark.parametrize("arguments", [{"train_size": 1}, {"val_size": 0}, {"negation": 1.5}, {"label_noise": 0.7}])
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        SyntheticReviewsDataModule(**arguments)
