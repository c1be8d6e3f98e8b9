from collections import Counter

import numpy as np
import pytest

from lightning_attn.data.labels import count_classes, encode_labels, find_classes, stratified
from lightning_attn.types import InputError


def place(row: int) -> str:
    return f"here, line {row + 7}"


def test_classes_are_sorted_by_number_or_alphabet() -> None:
    assert find_classes([10, 2, 1]) == ["1", "2", "10"]
    assert find_classes(["10", "2", "-1"]) == ["-1", "2", "10"]
    assert find_classes(["b", "a", "10"]) == ["10", "a", "b"]
    assert find_classes([["y", "x"], [], ["z"]]) == ["x", "y", "z"]


def test_one_label_an_example_becomes_a_class_index() -> None:
    target = encode_labels(["b", "a", "b"], ["a", "b"], False, "val", place)
    assert target.tolist() == [1, 0, 1]
    assert count_classes(target, ["a", "b"]) == [1, 2]


def test_several_labels_become_columns() -> None:
    target = encode_labels([["b"], [], ["a", "b"]], ["a", "b"], True, "val", place)
    assert target.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert target.dtype == np.float32
    assert count_classes(target, ["a", "b"]) == [1, 2]


def test_an_unknown_label_is_named_with_its_split_and_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"The val split has the unknown label 'c' \(here, line 8\).*'a', 'b'"):
        encode_labels(["a", "c"], ["a", "b"], False, "val", place)


def test_stratified_keeps_shares_and_takes_each_row_once() -> None:
    labels = ["a"] * 700 + ["b"] * 200 + ["c"] * 100
    stay, leave = stratified(labels, range(1000), 0.1, seed=0)
    assert sorted([*stay.tolist(), *leave.tolist()]) == list(range(1000))
    assert Counter(labels[row] for row in leave) == {"a": 70, "b": 20, "c": 10}
    assert stratified(labels, range(1000), 0.1, seed=0)[1].tolist() == leave.tolist()
    assert stratified(labels, range(1000), 0.1, seed=1)[1].tolist() != leave.tolist()


def test_the_carved_rows_are_these_on_every_machine() -> None:
    # recorded once; another result here means that everybody's carved validation splits have changed
    assert stratified(["a", "b"] * 10, range(20), 0.2, seed=0)[1].tolist() == [5, 8, 12, 19]


def test_equal_texts_stay_on_one_side() -> None:
    texts = [f"text {number % 30}" for number in range(90)]
    stay, leave = stratified(["a", "b", "a"] * 30, texts, 0.3, seed=0)
    assert not {texts[row] for row in stay} & {texts[row] for row in leave}
    assert len(leave) > 0


def test_a_class_keeps_its_only_example_in_training() -> None:
    stay, leave = stratified(["a"] * 9 + ["b"], range(10), 0.5, seed=0)
    assert 9 in stay
    assert len(leave) == 4
