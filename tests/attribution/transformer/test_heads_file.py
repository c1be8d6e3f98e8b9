from __future__ import annotations

from pathlib import Path

import pytest

from lightning_attn.attribution.transformer import read_heads, write_heads
from lightning_attn.types import InputError


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_heads(tmp_path / "heads.json", [(0, 3), (), [1]])
    assert read_heads(tmp_path / "heads.json") == [[0, 3], [], [1]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is no JSON file"),
        ("[[0], [1]]", 'has no "layers"'),
        ('{"layers": []}', 'has no "layers"'),
        ('{"layers": [[0], 1]}', "Layer 1 of .* is 1: a list"),
        ('{"layers": [["0"]]}', r'Layer 0 of .* is \["0"\]'),
        ('{"layers": [[-1]]}', r"Layer 0 of .* is \[-1\]"),
        ('{"layers": [[true]]}', r"Layer 0 of .* is \[true\]"),
    ],
)
def test_other_files_are_refused(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    path.write_text(content)
    with pytest.raises(InputError, match=reason):
        read_heads(path)
