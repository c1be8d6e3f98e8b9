from collections import Counter

import numpy as np
import pytest

from lightning_attn.data.labels import count_classes, drawn, encode_labels, find_classes, stratified
from lightning_attn.errors import InputError


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


def test_a_list_among_single_labels_is_named_with_its_place() -> None:
    with pytest.raises(InputError, match=r"val split has the list of labels \['a'\] \(here, line 8\).*single label"):
        encode_labels(["b", ["a"]], ["a", "b"], False, "val", place)
    with pytest.raises(InputError, match=r"list of labels \[\] \(here, line 7\)"):
        encode_labels([[]], ["a", "b"], False, "val", place)


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


@pytest.mark.parametrize("size", [2, 3, 4, 10, 25, 49])
def test_drawn_rows_are_of_all_classes_and_no_more_than_asked(size: int) -> None:
    labels = ["a"] * 46 + ["b"] * 3 + ["z"]  # the rare class at the end of the file
    for seed in range(20):
        rows = drawn(labels, size, seed).tolist()
        assert rows == sorted(set(rows))
        assert len(rows) <= size
        assert {labels[row] for row in rows} == ({"a", "b", "z"} if size >= 3 else {labels[row] for row in rows})
        assert drawn(labels, size, seed).tolist() == rows
    assert len({tuple(drawn(labels, size, seed)) for seed in range(20)}) > 1


def test_drawn_rows_keep_the_shares_of_classes() -> None:
    labels = ["a"] * 700 + ["b"] * 200 + ["c"] * 100
    assert Counter(labels[row] for row in drawn(labels, 100, seed=0)) == {"a": 70, "b": 20, "c": 10}


def test_the_largest_class_makes_room() -> None:
    labels = [*"aaaabcdefg"]  # six classes of one example, and room for two of the large class
    assert Counter(labels[row] for row in drawn(labels, 8, seed=0)) == {"a": 2, **dict.fromkeys("bcdefg", 1)}
