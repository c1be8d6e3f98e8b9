"""Reviews made up by a small grammar, whose evidence is known exactly: `SyntheticReviewsDataModule`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.errors import InputError

CLASSES = ["negative", "positive"]


def _words(text: str) -> list[str]:
    return text.split()


ADJECTIVES = (
    _words("dull clumsy tedious awful bland weak shallow messy boring lifeless tiresome poor forced stale hollow"),
    _words("great charming gripping lovely fresh strong moving clever funny tender graceful rich honest warm vivid"),
)
VERBS = (
    _words("hated disliked regretted despised endured mocked"),
    _words("loved enjoyed admired praised treasured liked"),
)
ASPECTS = _words("film plot acting script music ending cast story dialogue pacing photography direction")
OTHERS = _words("neighbour cousin taxi driver hotel dinner weather bus friend waiter umbrella seat")
DAYS = _words("monday tuesday thursday friday saturday sunday")
PLACES = _words("town cinema festival library school station")
NEGATIONS = ["not", "never", "hardly"]
DEGREES = ["very", "rather", "quite", "truly", "so"]

Clause = tuple[list[str], list[float]]  # words, and the evidence of each


class SyntheticReviewsDataModule(CorpusDataModule):
    """Short reviews with planted sentiment: the default data, made in a moment, without a download.

    Each review holds one or two opinions on the film, all of the label's polarity, among clauses that say nothing
    (``we saw it on friday in town``) and distractors, which use the same adjectives for something else (``my dull
    cousin came along``). A negation turns an opinion's word round (``the plot was not dull`` is positive). The
    evidence is 1 on the opinion words on the film and their negations, 0 elsewhere; so it is known exactly.

    Args:
        train_size: Training reviews, at least 2.
        val_size: Validation reviews, at least 1.
        test_size: Test reviews, at least 1.
        negation: Share of opinions that are put as a negation, in [0, 1].
        distractors: Probability of each of the two distractors that a review may have, in [0, 1].
        default_tokens: Number of tokens ``<default1>`` ... that end every review: without content, there for the
            attention to send label information through.
        label_noise: Share of training labels that are flipped, in [0, 0.5].
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.
    """

    on_disk = False

    def __init__(
        self,
        train_size: int = 2000,
        val_size: int = 400,
        test_size: int = 400,
        negation: float = 0.3,
        distractors: float = 0.5,
        default_tokens: int = 0,
        label_noise: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cache_dir=None, **kwargs)
        for name, size, least in (
            ("train_size", train_size, 2),
            ("val_size", val_size, 1),
            ("test_size", test_size, 1),
        ):
            if size < least:
                raise InputError(f"SyntheticReviewsDataModule needs a {name} of at least {least}, not {size}.")
        for name, value, most in (
            ("negation", negation, 1.0),
            ("distractors", distractors, 1.0),
            ("label_noise", label_noise, 0.5),
        ):
            if not 0 <= value <= most:
                raise InputError(f"SyntheticReviewsDataModule needs a {name} from 0 to {most:g}, not {value:g}.")
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.negation = negation
        self.distractors = distractors
        self.default_tokens = default_tokens
        self.label_noise = label_noise

    def classes(self) -> list[str]:
        """Negative and positive."""
        return CLASSES

    def files(self) -> list[Path]:
        """None."""
        return []

    def settings(self) -> dict[str, Any]:
        """Everything that the grammar depends on."""
        return {
            "sizes": self.sizes,
            "negation": self.negation,
            "distractors": self.distractors,
            "default_tokens": self.default_tokens,
            "label_noise": self.label_noise,
            "seed": self.seed,
        }

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """Make the reviews of each split."""
        splits = {}
        for number, (split, size) in enumerate(self.sizes.items()):
            generator = np.random.default_rng((self.seed, number))
            # classes alternate, so that both are there and a majority guess gains nothing
            polarities = [row % 2 for row in range(size)]
            reviews = [self._review(generator, polarity) for polarity in polarities]
            if split == "train":
                flips = generator.choice(size, round(self.label_noise * size), replace=False)
                polarities = [
                    1 - polarity if row in set(flips.tolist()) else polarity for row, polarity in enumerate(polarities)
                ]
            splits[split] = Examples(
                texts=[words for words, _ in reviews],
                labels=[CLASSES[polarity] for polarity in polarities],
                source=f"synthetic {split}",
                evidence=[evidence for _, evidence in reviews],
            )
        return splits, ["Synthetic reviews, made by a grammar."]

    def _review(self, generator: np.random.Generator, polarity: int) -> Clause:
        clauses = [self._opinion(generator, polarity) for _ in range(generator.integers(1, 3))]
        clauses += [_filler(generator) for _ in range(generator.integers(0, 3))]
        clauses += [_distractor(generator) for _ in range(2) if generator.random() < self.distractors]
        words: list[str] = []
        evidence: list[float] = []
        for position in generator.permutation(len(clauses)):
            said, marked = clauses[position]
            words += [*said, _pick(generator, [",", ".", "and"])]
            evidence += [*marked, 0.0]
        words[-1] = "."
        defaults = [f"<default{number + 1}>" for number in range(self.default_tokens)]
        return words + defaults, evidence + [0.0] * self.default_tokens

    def _opinion(self, generator: np.random.Generator, polarity: int) -> Clause:
        """A clause on the film; a word in capitals stands for what decides the label."""
        negated = generator.random() < self.negation
        word_polarity = 1 - polarity if negated else polarity
        aspect = _pick(generator, ASPECTS)
        negation = _pick(generator, NEGATIONS)
        if generator.random() < 0.3:
            verb = _pick(generator, VERBS[word_polarity])
            return _mark(["i", *([negation] if negated else []), verb, "the", aspect], {verb, negation})
        adjective = _pick(generator, ADJECTIVES[word_polarity])
        degree = [_pick(generator, DEGREES)] if generator.random() < 0.4 else []
        said = ["the", aspect, _pick(generator, ["was", "is", "seemed"]), *([negation] if negated else [])]
        return _mark([*said, *degree, adjective], {adjective, negation})


def _filler(generator: np.random.Generator) -> Clause:
    place, day = _pick(generator, PLACES), _pick(generator, DAYS)
    said = [
        ["we", "saw", "it", "on", day, "in", "the", place],
        ["it", "runs", "for", "two", "hours"],
        ["the", _pick(generator, ASPECTS), "is", "from", "the", place],
        ["my", _pick(generator, OTHERS), "saw", "it", "on", day],
    ]
    return _mark(said[generator.integers(len(said))], set())


def _distractor(generator: np.random.Generator) -> Clause:
    adjective = _pick(generator, ADJECTIVES[generator.integers(2)])
    other = _pick(generator, OTHERS)
    said = [
        ["my", adjective, other, "came", "along"],
        ["the", other, "was", adjective],
        ["we", "met", "a", adjective, other, "in", "the", _pick(generator, PLACES)],
    ]
    return _mark(said[generator.integers(len(said))], set())


def _pick(generator: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(generator.integers(len(words)))]


def _mark(words: list[str], evidence: set[str]) -> Clause:
    return words, [float(word in evidence) for word in words]
