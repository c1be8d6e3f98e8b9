import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attn.data.bags import BagTableDataModule, stored
from lightning_attn.errors import InputError

HEADER = "bag,instance,feature1,feature2,label,key"


def opened(path: Path, **arguments) -> BagTableDataModule:
    data = BagTableDataModule(path, **{"val_share": 0.25, "test_share": 0.25, **arguments})
    data.prepare_data()
    data.setup()
    return data


def rows_of(bags: int = 8, seed: int = 0) -> list[dict]:
    generator = np.random.default_rng(seed)
    rows = []
    for bag in range(bags):
        rows += [
            {
                "bag": f"b{bag}",
                "instance": f"i{number}",
                "feature1": round(generator.normal(), 3),
                "feature2": float(100 * bag + number),
                "label": ("no", "yes")[bag % 2],
                "key": float(number == 0 and bag % 2),
            }
            for number in range(1 + bag % 3)
        ]
    return rows


def write(path: Path, rows: list[dict], separator: str = ",") -> Path:
    lines = [separator.join(rows[0])] + [separator.join(str(value) for value in row.values()) for row in rows]
    text = ("\n".join(lines) + "\n").encode()
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text))
    return path


def by_name(data: BagTableDataModule) -> dict[str, tuple[list, list, str]]:
    """Second feature and evidence of the instances, and label, of each bag of all splits."""
    found = {}
    for split in data.splits:
        part = data.dataset(split)
        for row, name in enumerate(part.names.tolist()):
            batch = part[row]
            evidence = None if batch.evidence is None else batch.evidence[0].tolist()
            found[name] = batch.inputs[:, 1].tolist(), evidence, data.schema.class_names[int(batch.target)]
    return found


EXPECTED = {
    f"b{bag}": (
        [100.0 * bag + number for number in range(1 + bag % 3)],
        [float(number == 0 and bag % 2) for number in range(1 + bag % 3)],
        ("no", "yes")[bag % 2],
    )
    for bag in range(8)
}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.xz", "a.tsv", "a.parquet"])
def test_tables_of_every_kind_give_the_same_bags(tmp_path: Path, name: str) -> None:
    rows = rows_of()
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name, row_group_size=3)
    else:
        write(tmp_path / name, rows, "\t" if ".tsv" in name else ",")
    data = opened(tmp_path / name, instance="instance", key="key")
    assert by_name(data) == EXPECTED
    assert data.schema.feature_shape == (2,)
    assert data.schema.class_names == ("no", "yes")


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # byte order mark, carriage returns
    assert by_name(opened(path, instance="instance", key="key")) == EXPECTED


@given(order=st.permutations(range(len(rows_of()))))
@settings(max_examples=25, deadline=None)
def test_the_rows_of_a_bag_need_not_stand_together(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows = rows_of()
    path = write(folder / "a.csv", [rows[place] for place in order])
    found = by_name(opened(path, key="key", cache_dir=folder / "cache"))
    expected = {}
    for name, (values, evidence, label) in EXPECTED.items():
        seen = [rows[place]["feature2"] for place in order if rows[place]["bag"] == name]
        expected[name] = seen, [evidence[values.index(value)] for value in seen], label
    assert found == expected


def test_a_table_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(bags=300)
    path = write(tmp_path / "a.csv", [rows[place] for place in np.random.default_rng(0).permutation(len(rows))])
    whole = by_name(opened(path, instance="instance", key="key"))
    monkeypatch.setattr(stored, "CHUNK", 512)
    parts = by_name(opened(path, instance="instance", key="key", cache_dir=tmp_path / "other"))
    assert parts == whole
    assert len(whole) == 300


def test_the_cache_is_used_and_known_by_content_and_arguments(tmp_path: Path, own_cache: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of())
    opened(path)
    [entry] = own_cache.iterdir()
    stamp = (entry / "features.npy").stat().st_mtime_ns
    opened(path)
    assert [*own_cache.iterdir()] == [entry]
    assert (entry / "features.npy").stat().st_mtime_ns == stamp
    opened(path, seed=1)
    opened(path, key="key")
    assert len([*own_cache.iterdir()]) == 3
    write(path, rows_of(seed=1))
    opened(path)
    assert len([*own_cache.iterdir()]) == 4


def test_instances_are_read_from_the_disk_as_they_are_needed(tmp_path: Path) -> None:
    part = opened(write(tmp_path / "a.csv", rows_of())).dataset("train")
    assert isinstance(part.bags.features, np.memmap)
    assert part[0].inputs.dtype == torch.float32


def test_splits_are_carved_by_bags_with_every_class(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of(bags=40))
    data = opened(path, val_share=0.2, test_share=0.1)
    names = {split: set(data.dataset(split).names.tolist()) for split in data.splits}
    assert [len(names[split]) for split in ("train", "val", "test")] == [28, 8, 4]
    assert len(set.union(*names.values())) == 40
    for split in data.splits:
        assert np.ptp(np.bincount(data.dataset(split).labels)) == 0
    again = opened(path, val_share=0.2, test_share=0.1, cache_dir=tmp_path / "again")
    assert set(again.dataset("val").names.tolist()) == names["val"]
    other = opened(path, val_share=0.2, test_share=0.1, seed=1)
    assert set(other.dataset("val").names.tolist()) != names["val"]
    assert "No val split was found: 8 of 40 training bags, by seed 0." in data.describe()


def test_splits_are_found_by_file_name_and_ids_may_recur(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "dev", "test")):
        write(tmp_path / f"bags_{split}.csv", rows_of(bags=4 + number))
    data = opened(tmp_path)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [4, 5, 6]
    assert data.dataset("val").names.tolist() == [f"b{number}" for number in range(5)]
    assert "Found train, val, test." in data.describe()


def test_a_bag_may_go_over_several_files_of_a_split(tmp_path: Path) -> None:
    rows = rows_of(bags=9)
    write(tmp_path / "train-1.csv", rows[:8])
    write(tmp_path / "train-2.csv", rows[8:])
    write(tmp_path / "test.csv", rows_of())
    data = opened(tmp_path, val_share=0)
    assert len(data.dataset("train")) == 9
    assert sum(data.dataset("train").lengths) == len(rows)


def test_splits_are_found_in_a_column(tmp_path: Path) -> None:
    splits = {"b1": "dev", "b2": "test", "b5": "valid"}
    rows = [{**row, "part": splits.get(row["bag"], "train")} for row in rows_of()]
    data = opened(write(tmp_path / "a.csv", rows), split="part")
    assert data.dataset("val").names.tolist() == ["b1", "b5"]
    assert data.dataset("test").names.tolist() == ["b2"]
    assert len(data.dataset("train")) == 5


def test_key_instances_may_be_named(tmp_path: Path) -> None:
    named = {"b1": "i0", "b2": "i2 i0", "b5": ""}
    rows = [{**row, "keys": named.get(row["bag"], "")} for row in rows_of()]
    found = by_name(opened(write(tmp_path / "a.csv", rows), instance="instance", keys="keys"))
    assert found["b1"][1] == [1, 0]
    assert found["b2"][1] == [1, 0, 1]
    assert found["b5"][1] == [0, 0, 0]
    lists = [{**row, "keys": row["keys"].split()} for row in rows]
    pq.write_table(pa.Table.from_pylist(lists), tmp_path / "a.parquet")
    assert by_name(opened(tmp_path / "a.parquet", instance="instance", keys="keys")) == found


def test_an_empty_key_is_unknown(tmp_path: Path) -> None:
    rows = rows_of()
    rows[1]["key"] = ""
    found = by_name(opened(write(tmp_path / "a.csv", rows), key="key"))
    assert np.isnan(found["b1"][1][0])
    assert found["b1"][1][1] == 0


def test_one_column_a_class_makes_the_task_multi_label(tmp_path: Path) -> None:
    rows = [{**row, "red": int(row["bag"] in ("b1", "b3")), "round": int(row["bag"] != "b0")} for row in rows_of()]
    data = opened(write(tmp_path / "a.csv", rows), label=["red", "round"], val_share=0, test_share=0)
    assert data.schema.multi_label
    assert data.schema.class_names == ("red", "round")
    train = data.dataset("train")
    assert dict(zip(train.names.tolist(), train.labels.tolist(), strict=True))["b1"] == [1, 1]
    assert train.labels[0].tolist() == [0, 0]
    assert train[[0, 1]].target.dtype == torch.float32


def test_parquet_takes_lists_as_features_and_as_labels(tmp_path: Path) -> None:
    rows = [
        {"bag": row["bag"], "feature": [row["feature1"], row["feature2"], 1], "label": [row["label"], "any"]}
        for row in rows_of()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = opened(tmp_path / "a.parquet", val_share=0, test_share=0)
    assert data.schema.feature_shape == (3,)
    assert data.schema.class_names == ("any", "no", "yes")
    assert data.dataset("train").labels[0].tolist() == [1, 1, 0]
    assert data.dataset("train")[1].inputs[:, 1].tolist() == EXPECTED["b1"][0]


def test_labels_that_are_numbers_sort_as_numbers(tmp_path: Path) -> None:
    rows = [{**row, "label": (10, 2)[row["label"] == "yes"]} for row in rows_of()]
    assert opened(write(tmp_path / "a.csv", rows)).schema.class_names == ("2", "10")
    table = pa.Table.from_pylist([{**row, "label": float(row["label"])} for row in rows])
    pq.write_table(table, tmp_path / "a.parquet")
    assert opened(tmp_path / "a.parquet").schema.class_names == ("2", "10")


def test_features_are_chosen_by_name(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "a.csv", rows_of()), features=["feature2"])
    assert data.schema.feature_shape == (1,)


def test_classes_come_from_the_checkpoint_if_there_is_one(tmp_path: Path) -> None:
    state = opened(write(tmp_path / "a.csv", rows_of())).export()
    write(tmp_path / "test.csv", [{**row, "label": "yes"} for row in rows_of()])
    data = BagTableDataModule(tmp_path / "test.csv", split=None, val_share=0, test_share=0)
    data.restore(json.loads(json.dumps(state)))
    data.setup()
    assert data.schema.class_names == ("no", "yes")
    assert data.dataset("train").labels.tolist() == [1] * 8
    wider = [{"feature0": 1.0, **row} for row in rows_of(bags=40)]
    other = BagTableDataModule(write(tmp_path / "wide.csv", wider))
    other.restore(state)
    with pytest.raises(InputError, match=r"trained on instances of shape \(2,\), but these data have \(3,\)"):
        other.setup()


CHANGES = {
    "no number": (
        "b1,i0,0.5,",
        "b1,i0,nan,",
        "line 3: an instance of the bag 'b1' has no number in the column 'feature1'",
    ),
    "infinite": (
        "b1,i0,0.5,",
        "b1,i0,inf,",
        "line 3: an instance of the bag 'b1' has an infinite number in the column",
    ),
    "blank": ("b1,i0,0.5,", "b1,i0,,", "line 3: an instance of the bag 'b1' has no number in the column 'feature1'"),
    "empty bag": ("b0,i0,1.5,1,", "b0,,,,", "line 2: an instance of the bag 'b0' has no features; fill them in"),
    "text": ("b1,i0,0.5,", "b1,i0,half,", "line 3: the column 'feature1' holds 'half'; it should be a number"),
    "short": ("b1,i0,0.5,2,yes,1", "b1,i0,0.5,yes,1", "line 3, has 5 fields, but the header has 6"),
    "long": ("b1,i0,0.5,2", "b1,i0,0.5,2,9", "line 3, has 7 fields, but the header has 6"),
    "two labels": (
        "b1,i1,2.5,3,yes",
        "b1,i1,2.5,3,no",
        "line 4: the bag 'b1' has the label 'no', but 'yes' in a row before",
    ),
    "no label": ("b1,i1,2.5,3,yes", "b1,i1,2.5,3,", "line 4: the bag 'b1' has no label"),
    "no bag": ("b1,i1,2.5", ",i1,2.5", "line 4: the column 'bag' is empty; it should hold a bag id"),
    "double": ("b1,i1,2.5", "b1,i0,2.5", "line 4: the bag 'b1' has an instance of this id already"),
    "key": ("yes,1", "yes,2", "line 3: an instance of the bag 'b1' has the key 2; it should be from 0 to 1"),
    "column": (
        "feature1,feature2",
        "x,y",
        "has no column that begins with 'feature', as features should; it has bag, ins",
    ),
    "twice": ("feature1,feature2", "key,feature2", "has the column 'key' twice; rename one"),
    "missing": ("bag,", "patient,", "has no column 'bag'; it has patient, instance, feature1"),
    "quote": ("b1,i1,2.5", '"b1,i1,2.5', "a.csv, line 4, is malformed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_bad_rows_are_named(tmp_path: Path, change: str) -> None:
    good = f"{HEADER}\nb0,i0,1.5,1,no,0\nb1,i0,0.5,2,yes,1\nb1,i1,2.5,3,yes,0\n"
    before, after, problem = CHANGES[change]
    assert before in good
    path = tmp_path / "a.csv"
    path.write_text(good.replace(before, after))
    with pytest.raises(InputError) as raised:
        opened(path, instance="instance", key="key")
    assert problem in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_are_named_by_the_line_they_begin_in(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('bag,feature,label\n"b\n0",1,x\n\nb1,oops,y\n')
    with pytest.raises(InputError, match=r"a\.csv, line 5: the column 'feature' holds 'oops'"):
        opened(path)


def test_a_key_outside_its_bag_is_named(tmp_path: Path) -> None:
    rows = [{**row, "keys": "i0 i2" if row["bag"] == "b1" else ""} for row in rows_of()]
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(InputError, match=r"a\.csv: the bag 'b1' has the key 'i2', which is none of its instances"):
        opened(path, instance="instance", keys="keys")


def test_lists_of_unequal_width_are_named(tmp_path: Path) -> None:
    rows = [{"bag": "b0", "feature": [1.0, 2.0], "label": 0}, {"bag": "b1", "feature": [1.0], "label": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"row 2: an instance of the bag 'b1' has 1 features, but those before .* 2"):
        opened(tmp_path / "a.parquet")


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "feature1": "x"} for row in rows_of()]), path)
    with pytest.raises(InputError, match=r"a\.parquet: the column 'feature1' holds string; it should hold numbers"):
        opened(path)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match=r"a\.parquet cannot be read as \.parquet"):
        opened(path)
    pq.write_table(pa.Table.from_pylist(rows_of()).slice(0, 0), path)
    with pytest.raises(InputError, match=r"a\.parquet has no rows"):
        opened(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty: it should hold one instance per row"),
        (HEADER.encode() + b"\n", "has no rows below its header"),
        (HEADER.encode() + b"\nb0,i0,1,2,\xff,0\n", "line 2, is not UTF-8"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        opened(path)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv.gz", rows_of(bags=2000))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"a\.csv\.gz is damaged: it cannot be unpacked after line \d+"):
        opened(path)


def test_files_with_other_features_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows_of())
    write(tmp_path / "test.csv", [{"feature0": 1.0, **row} for row in rows_of()])
    with pytest.raises(
        InputError, match="has 3 columns of features, feature0 to feature2, but the files before it have 2"
    ):
        opened(tmp_path)


def test_a_bag_in_two_splits_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "part": "test" if row["instance"] == "i1" else "train"} for row in rows_of()]
    with pytest.raises(InputError, match="the bag 'b1' has the split 'test', but 'train' in a row before"):
        opened(write(tmp_path / "a.csv", rows), split="part")
    rows = [{**row, "part": "holdout"} for row in rows_of()]
    with pytest.raises(InputError, match="line 2: the column 'part' holds 'holdout', which names no split"):
        opened(write(tmp_path / "a.csv", rows), split="part")


def test_labels_that_make_no_task_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{**row, "label": "x"} for row in rows_of()])
    with pytest.raises(InputError, match="have the label x only; at least two classes are needed"):
        opened(path)
    write(path, [{**row, "p": 0, "q": 1} for row in rows_of()])
    with pytest.raises(InputError, match="The class 'p' has no training bag"):
        opened(path, label=["p", "q"])
    write(path, [{**row, "p": 3} for row in rows_of()])
    with pytest.raises(InputError, match="the column 'p' holds 3; a column of labels holds 0 or 1"):
        opened(path, label=["p"])
    write(tmp_path / "test.csv", [{**row, "label": "maybe"} for row in rows_of()])
    write(tmp_path / "train.csv", rows_of())
    path.unlink()
    with pytest.raises(InputError, match=r"test split has the unknown label 'maybe' \(bag 'b0'\)"):
        opened(tmp_path)


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file or folder of bags at"):
        opened(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no \.csv, \.tsv, \.parquet file"):
        opened(tmp_path)
    write(tmp_path / "a.csv", rows_of())
    write(tmp_path / "train.csv", rows_of())
    with pytest.raises(InputError, match=r"a\.csv is named after none of train, val, test"):
        opened(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"a\.txt is none of \.csv"):
        opened(tmp_path / "a.txt")
    (tmp_path / "train.csv").rename(tmp_path / "test.csv")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(InputError, match="There is no training split, only test"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"key": "k", "keys": "ks"}, r"Give key \('k', a number per instance\) or keys"),
        ({"keys": "ks"}, "say in which column those are, with instance"),
        ({"val_share": 0.6, "test_share": 0.4}, "add up to below 1"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments: dict, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        BagTableDataModule("a.csv", **arguments)


def test_too_few_bags_to_carve_from_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows_of(bags=2))
    with pytest.raises(InputError, match=r"2 training bags are too few to carve 0.25 from each class"):
        opened(path)


def test_lists_of_labels_in_another_order_are_the_same_labels(tmp_path: Path) -> None:
    rows = [
        {"bag": row["bag"], "feature": row["feature2"], "label": ["b", "a"] if number % 2 else ["a", "b"]}
        for number, row in enumerate(rows_of())
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = opened(tmp_path / "a.parquet", val_share=0, test_share=0)
    assert data.schema.class_names == ("a", "b")
    assert data.dataset("train").labels.tolist() == [[1, 1]] * 8
    rows[3]["label"] = ["a", None]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"row 4: the bag 'b2' has no label"):
        opened(tmp_path / "a.parquet")


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows_of())
    (tmp_path / "._a.csv").write_bytes(b"\x00\x05\x16\x07")
    assert len(by_name(opened(tmp_path))) == 8


def test_ids_that_were_read_as_floats_are_named_alike_in_every_part(tmp_path: Path) -> None:
    rows = [{**row, "bag": bag} for row, bag in zip(rows_of(bags=6), [1.0, 2.0, 2.0, 2.5, 2.5, 2.5] * 2, strict=True)]
    rows = [{**row, "label": "yes" if row["bag"] == 2 else "no"} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    data = opened(tmp_path / "a.parquet", val_share=0, test_share=0)
    assert data.dataset("train").names.tolist() == ["1", "2", "2.5"]
