"""One text, explained: `Explanation`."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_attn.attribution.lafa import NeighbourText


@dataclass
class Explanation:
    """One text, explained.

    Attributes:
        text: As it was given.
        prediction: Name of the most probable class, or the most probable answer; what the scores explain. Of several
            labels those with a probability of at least 1/2, or ``none``; scores explain the most probable one.
        probabilities: By class name, or by answer the most probable ones.
        tokens: What the network read, boundary tokens left out; of a long text the window that the answer stands in.
        scores: By method, one number a token.
        query: Question or hypothesis that the text was read under; None for single texts.
        sides: Which text each token is of, 0 the text and 1 the query, where a network reads both as one; else None.
        neighbours: Training texts that lent their importance to the text, the nearest first; None if no method borrows.
    """

    text: str
    prediction: str
    probabilities: dict[str, float]
    tokens: list[str]
    scores: dict[str, list[float]]
    query: str | None = None
    sides: list[int] | None = None
    neighbours: list[NeighbourText] | None = None
