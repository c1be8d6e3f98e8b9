"""A seeded part of `python -m tests.fuzz`: damaged files of every format give what they hold, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.formats import FORMATS
from tests.fuzz.run import attempt, damage, write

INPUTS = 24  # of a format that is read in milliseconds


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_give_rows_or_one_sentence(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    outcomes = []
    for number in range(max(4, round(INPUTS * form.share))):
        write(damage(name, 0, number), tmp_path / "input")
        outcomes.append(attempt(form, tmp_path / "input"))
        assert outcomes[-1].fine, (
            f"{outcomes[-1].kind}: {outcomes[-1].text}\npython -m tests.fuzz --formats '{name}' --number {number}"
        )
    assert outcomes[0].kind == "accepted", outcomes[0].text
    assert any(outcome.kind == "refused" for outcome in outcomes)
