"""Files that say which attention heads of a model are important: `HeadsFile`, `read_heads`, `write_heads`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_attn.attribution.lafa.reading import weights_fingerprint
from lightning_attn.errors import InputError
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.ops.files import write_text
from lightning_attn.ops.text import to_json


@dataclass(frozen=True)
class HeadsFile:
    """What such a file says.

    Attributes:
        layers: Important attention heads of each layer, the lowest first, numbered from 0.
        reasons: Why each is important, by ``layer.number``; empty if the file does not say.
    """

    layers: list[list[int]]
    reasons: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path, network: TransformerModel | None = None) -> HeadsFile:
        """Read it.

        Args:
            path: A JSON file whose ``layers`` is a list with one list of numbers per layer, as from
                :func:`write_heads`.
            network: Whose attention heads these should be. A file that does not say whose they are, such as one written
                by hand, fits every network.

        Raises:
            InputError: The file is no such file, or it is about another model.
        """
        try:
            content = json.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:  # the former for whole numbers of thousands of digits, too
            raise InputError(f"{path} is no JSON file ({error}).") from error
        layers = content.get("layers") if isinstance(content, dict) else None
        if not isinstance(layers, list) or not layers:
            raise InputError(f'{path} has no "layers": one list of attention heads per layer is expected there.')
        for number, layer in enumerate(layers):
            if not isinstance(layer, list) or not all(type(head) is int and head >= 0 for head in layer):
                raise InputError(
                    f"Layer {number} of {path} is {json.dumps(layer)}: a list of attention heads, numbered from 0, is "
                    "expected there."
                )
        if not any(layers):
            raise InputError(f"{path} names no attention head: one at least is needed.")
        if network is not None and "model" in content:
            _check(path, content["model"], network)
        account = content.get("found")
        reasons = account.get("reasons", {}) if isinstance(account, dict) else {}
        well_formed = isinstance(reasons, dict) and all(
            isinstance(why, list) and all(isinstance(one, str) for one in why) for why in reasons.values()
        )
        if not well_formed:
            raise InputError(f'"reasons" of {path} is not a list of texts for each attention head; leave it out.')
        return cls(layers, reasons)


def read_heads(path: str | Path, network: TransformerModel | None = None) -> list[list[int]]:
    """Important attention heads of each layer, the lowest first, numbered from 0; see :meth:`HeadsFile.read`."""
    return HeadsFile.read(path, network).layers


def write_heads(
    path: str | Path,
    heads: Sequence[Sequence[int]],
    network: TransformerModel | None = None,
    found: Mapping[str, Any] | None = None,
) -> None:
    """Write what :func:`read_heads` reads.

    Args:
        path: Where to.
        heads: As :func:`read_heads` returns them.
        network: Whose attention heads these are; None leaves that open.
        found: Plain values for whoever reads the file: how they were found.
    """
    content: dict[str, Any] = {"layers": [list(layer) for layer in heads]}
    if network is not None:
        content["model"] = model_mark(network)
    if found is not None:
        content["found"] = dict(found)
    # One line per key, so that the lists of attention heads can be read and edited.
    lines = ",\n".join(f" {json.dumps(key)}: {to_json(value)}" for key, value in content.items())
    write_text(path, f"{{\n{lines}\n}}\n")


def model_mark(network: TransformerModel) -> dict[str, Any]:
    """What tells a model from others: its kind, layers, attention heads per layer, and a fingerprint of its weights.

    Classifier and pooler are left out, which are above all attention heads, and new in a model that has not got them.
    """
    weights = {
        name: value
        for name, value in network.model.base_model.state_dict().items()
        if not name.startswith(("pooler", "classifier"))
    }
    return {
        "kind": network.model.config.model_type,
        "layers": network.depth,
        "attention_heads": network.heads_per_layer,
        "weights": weights_fingerprint(weights),
    }


def _check(path: str | Path, stored: Any, network: TransformerModel) -> None:
    own = model_mark(network)
    if stored == own:
        return
    if not isinstance(stored, dict) or stored.keys() != own.keys():
        raise InputError(f'"model" of {path} does not describe a model; leave it out if you wrote the file by hand.')
    shapes = [f"{mark['kind']} model of {mark['layers']} x {mark['attention_heads']}" for mark in (stored, own)]
    difference = "with other weights" if shapes[0] == shapes[1] else f"a {shapes[0]}, and this is a {shapes[1]}"
    raise InputError(
        f"The important attention heads of {path} are those of another model ({difference}): make the file for "
        "this one with lightning-attn heads."
    )
