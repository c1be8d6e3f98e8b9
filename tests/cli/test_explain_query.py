"""``lightning explain`` for networks that read a text and a query."""

import json
from pathlib import Path

import pytest

from lightning_attn.cli.commands import main
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer
from tests.helpers.commands import run, write_config

STORY = "1 Mary went to the {a}.\n2 John went to the {b}.\n3 Where is Mary?\t{a}\t1\n4 Where is John?\t{b}\t2\n"
TEXT = "Mary went to the hall. John went to the attic."
ENCODER = {"class_path": "BiLSTM", "init_args": {"embedding_size": 8, "hidden_size": 4}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    stories = "".join(STORY.format(a=a, b=b) for a in ("hall", "attic") for b in ("attic", "hall") for _ in range(4))
    for split in ("train", "test"):
        (folder / f"qa1_facts_{split}.txt").write_text(stories)
    network = {"class_path": "PairedNetwork", "init_args": {"encoder": ENCODER, "query_encoder": ENCODER}}
    data = {"path": str(folder), "val_share": 0.25, "cache_dir": str(folder / "cache")}
    config = write_config(
        folder,
        model={"class_path": "AttentionClassifier", "init_args": {"network": network}},
        data={"class_path": "BabiDataModule", "init_args": data},
        trainer={"max_epochs": 1, "accelerator": "cpu", "devices": 1},
    )
    return run("fit", config, folder / "runs") / "checkpoints" / "last.ckpt"


def test_the_query_decides_and_is_reported(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "page.html"
    asked = ["--query", "Where is Mary?", "Where is John?", "--output", str(page)]
    assert main(["explain", "--ckpt_path", str(checkpoint), "--text", TEXT, TEXT, *asked]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [row["query"] for row in rows] == ["Where is Mary?", "Where is John?"]
    assert rows[0]["tokens"] == rows[1]["tokens"] == TEXT.replace(".", " .").split()
    assert rows[0]["scores"]["attention"] != rows[1]["scores"]["attention"]
    assert "Query: Where is John?" in page.read_text()


def test_one_query_serves_all_texts(checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["explain", "--ckpt_path", str(checkpoint), "--text", TEXT, "Mary went.", "--query", "Where?"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [row["query"] for row in rows] == ["Where?", "Where?"]


@pytest.mark.parametrize(
    ("queries", "problem"),
    [
        (None, "reads a text and a query: give the query too"),
        (["a", "b", "c"], "2 texts but 3 queries"),
        (["a", " "], "Query 2 of 2 is empty"),
    ],
)
def test_queries_that_do_not_fit_are_refused(checkpoint: Path, queries: list[str] | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Explainer(checkpoint).explain([TEXT, TEXT], queries=queries)
