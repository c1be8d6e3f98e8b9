from __future__ import annotations

import pytest

from lightning_attn.errors import InputError
from lightning_attn.ops.registry import Registry


def test_an_unknown_name_is_answered_with_all_that_there_are():
    shapes = Registry("shape", "shapes", {"square": 4})

    @shapes.register("circle")
    def circle() -> int:
        return 0

    assert shapes["circle"]() == circle() == 0
    assert "star" not in shapes
    assert shapes.get("star") is None
    with pytest.raises(InputError, match=r"There is no shape 'star'; the shapes are circle, square\."):
        shapes["star"]
