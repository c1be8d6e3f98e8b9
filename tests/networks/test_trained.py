"""`TrainedNetwork`: a network out of a checkpoint, by itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_attn.errors import InputError
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.commands import run, write_config
from tests.helpers.runs import tiny_data, tiny_module, trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model whose mitigations have weights of their own in it."""
    folder = tmp_path_factory.mktemp("trained")
    return run("fit", write_config(folder), folder / "runs", "--trainer.max_epochs=2") / "checkpoints" / "last.ckpt"


def test_it_is_the_network_that_lightning_loads(checkpoint: Path) -> None:
    found = TrainedNetwork.read(checkpoint)
    module = AttentionClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    batch = tiny_data().dataset("val")[range(8)]
    expected = module.network.eval()(batch)
    assert torch.equal(found.network(batch).logits, expected.logits)
    assert torch.equal(found.network(batch).attention, expected.attention)
    assert found.data == module.data_state
    assert not found.network.training
    assert not any(parameter.requires_grad for parameter in found.network.parameters())
    assert type(module.mitigation).__name__ not in repr(found.network), "a mitigation only matters in training"


def test_it_can_be_made_again_from_plain_values(checkpoint: Path, tmp_path: Path) -> None:
    found = TrainedNetwork.read(checkpoint)
    torch.save(found.state(), tmp_path / "state.pt")
    again = TrainedNetwork.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    batch = tiny_data().dataset("val")[range(8)]
    assert torch.equal(again.network(batch).logits, found.network(batch).logits)
    assert again.network.schema == found.network.schema
    assert again.data == found.data


def test_a_checkpoint_from_python_says_how_to_load_it(tmp_path: Path) -> None:
    data = tiny_data()
    each = trainer(tmp_path)
    each.fit(tiny_module(data), data)
    each.save_checkpoint(tmp_path / "python.ckpt")
    with pytest.raises(InputError, match="load_from_checkpoint"):
        TrainedNetwork.read(tmp_path / "python.ckpt")


def changed(checkpoint: Path, folder: Path, change: Any) -> Path:
    content = copy.deepcopy(torch.load(checkpoint, weights_only=True))
    change(content)
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def rename(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["network"]["init_args"]["encoder"]["class_path"] = "my_package.MyEncoder"


def misspell(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["network"]["init_args"]["encoder"]["class_path"] = "lightning_attn.encoders.BiLST"


def other_argument(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["network"]["init_args"]["encoder"]["init_args"]["width"] = 3


def other_size(content: dict[str, Any]) -> None:
    content["hyper_parameters"]["network"]["init_args"]["encoder"]["init_args"]["hidden_size"] = 5


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (rename, ["my_package.MyEncoder cannot be imported", "in the folder that fit was run in"]),
        (misspell, ["lightning_attn.encoders.BiLST cannot be imported"]),
        (other_argument, ["take other arguments by now", "width"]),
        (other_size, ["size mismatch"]),
    ],
)
def test_a_network_that_cannot_be_made(checkpoint: Path, tmp_path: Path, change: Any, parts: list[str]) -> None:
    path = changed(checkpoint, tmp_path, change)
    with pytest.raises(InputError) as raised:
        TrainedNetwork.read(path)
    message = str(raised.value)
    for part in [f"The network of the checkpoint {path} cannot be made", *parts]:
        assert part in message
    assert "\n" not in message


def test_nothing_but_a_network_is_made(checkpoint: Path, tmp_path: Path) -> None:
    def abuse(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["network"] = {"class_path": "pathlib.Path", "init_args": {}}

    with pytest.raises(InputError, match="cannot be made"):
        TrainedNetwork.read(changed(checkpoint, tmp_path, abuse))
