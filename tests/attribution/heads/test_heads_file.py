from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_attn.attribution.heads.heads_file import read_heads, write_heads
from lightning_attn.errors import InputError
from tests.helpers.tiny_models import toy_transformer


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


def test_a_file_knows_its_model(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    network = toy_transformer()
    write_heads(path, [[0], [1]], network, {"files": ["é.conllu"]})
    assert json.loads(path.read_text())["found"] == {"files": ["é.conllu"]}
    assert read_heads(path, network) == read_heads(path) == [[0], [1]]
    with torch.no_grad():  # what is above all attention heads may be trained on
        network.model.classifier.weight.add_(1)
        network.model.bert.pooler.dense.weight.add_(1)
    assert read_heads(path, network) == [[0], [1]]
    with torch.no_grad():
        network.model.bert.encoder.layer[0].attention.self.query.bias[0] += 1e-3
    with pytest.raises(InputError, match=r"are those of another model \(with other weights\): make the file"):
        read_heads(path, network)
    for other, shape in ((toy_transformer(layers=3), "bert model of 3 x 2"), (toy_transformer("roberta"), "roberta")):
        with pytest.raises(InputError, match=rf"another model \(a bert model of 2 x 2, and this is a {shape}"):
            read_heads(path, other)


def test_a_file_that_leaves_its_model_open_fits_any(tmp_path: Path) -> None:
    write_heads(tmp_path / "heads.json", [[0], [1]])
    assert read_heads(tmp_path / "heads.json", toy_transformer()) == [[0], [1]]


@pytest.mark.parametrize("model", ["bert", {"kind": "bert"}, None])
def test_a_model_that_is_none_is_refused(model: object, tmp_path: Path) -> None:
    (tmp_path / "heads.json").write_text(json.dumps({"layers": [[0], [1]], "model": model}))
    with pytest.raises(InputError, match=r'"model" of .* does not describe a model; leave it out'):
        read_heads(tmp_path / "heads.json", toy_transformer())
