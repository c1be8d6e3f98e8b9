"""Finished cells survive a run that was killed at any byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, append, finished, key, run_cells


def test_a_file_that_was_cut_anywhere_keeps_its_whole_lines_and_takes_new_ones(tmp_path: Path) -> None:
    cells: list[Cell] = [{"name": "one", "seed": 0}, {"name": "two", "seed": 1}]
    whole = tmp_path / "whole.jsonl"
    for number, cell in enumerate(cells):
        append(whole, cell, {"value": number})
    content = whole.read_bytes()
    first = content.index(b"\n")
    for end in range(len(content) + 1):
        path = tmp_path / f"{end}.jsonl"
        path.write_bytes(content[:end])
        known = finished(path)
        assert len(known) == (end >= first) + (end >= len(content) - 1)
        append(path, {"name": "three", "seed": 2}, {"value": 2})
        assert finished(path) == known | {key({"seed": 2, "name": "three"}): {"value": 2}}


def length(cell: dict[str, Any]) -> dict[str, float]:
    """What a cell is in the test of processes."""
    return {"value": float(len(cell["name"]))}


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cells.jsonl"
    cells: list[Cell] = [{"name": name} for name in ("a", "bb", "ccc")]
    path.parent.mkdir()
    append(path, cells[1], {"value": -1.0})
    run_cells(cells, length, path, 1)
    found = finished(path)
    assert [found[key(cell)]["value"] for cell in cells] == [1.0, -1.0, 3.0]
    assert "seconds" in found[key(cells[0])]
