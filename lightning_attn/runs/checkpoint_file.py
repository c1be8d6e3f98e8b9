"""Reading a checkpoint file without trusting it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from lightning_attn.compat import modernized
from lightning_attn.errors import InputError, shown
from lightning_attn.types import DataSchema

#: What `AttentionClassifier` writes, and every use of a checkpoint needs.
_REQUIRED = ("state_dict", "schema", "data")
#: What each part of a checkpoint is, where it is there.
_KINDS: dict[str, type] = {
    "state_dict": dict,
    "schema": dict,
    "data": dict,
    "hyper_parameters": dict,
    "callbacks": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
}
_LARGEST = 10**9  # of the numbers in a schema; ours have up to 10^6
#: What PyTorch says of a file that it could read, but refuses to build an object from.
_FOREIGN = re.compile(r"Unsupported global|unsupported GLOBAL|Unsupported class|call reduce|Can only (create|build)")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU; nothing in the file is executed.

    Args:
        path: Written by a Trainer for an ``AttentionClassifier``.

    Raises:
        InputError: There is no such file; it is damaged; it holds more than tensors and plain values; or it is the
            checkpoint of something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}{_others(path)}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error
    except pickle.UnpicklingError as error:
        if _FOREIGN.search(str(error)):
            raise InputError(
                f"The checkpoint {path} holds more than tensors and plain values, which could run code when it is "
                "loaded; it was not loaded."
            ) from error
        raise _damaged(path) from error
    except Exception as error:  # the unpickler runs on arbitrary bytes here, and fails in as many ways
        raise _damaged(path) from error
    missing = [name for name in _REQUIRED if not isinstance(checkpoint, dict) or name not in checkpoint]
    if missing:
        raise InputError(
            f"The checkpoint {path} was not written by an AttentionClassifier: it has no {' and no '.join(missing)}."
        )
    for name, kind in _KINDS.items():
        if not isinstance(checkpoint.get(name, kind()), kind):
            given = type(checkpoint[name]).__name__
            raise InputError(f"The checkpoint {path} is damaged: its {name} is a {given}, not a {kind.__name__}.")
    if any(not isinstance(name, str) for part in ("state_dict", "data", "schema") for name in checkpoint[part]):
        raise InputError(f"The checkpoint {path} is damaged: something in it has no name.")
    return {**checkpoint, "hyper_parameters": modernized(checkpoint.get("hyper_parameters", {}))}


def read_schema(stored: Mapping[str, Any]) -> DataSchema:
    """The schema that a checkpoint holds, as :meth:`DataSchema.as_dict` wrote it.

    Raises:
        InputError: It holds something else.
    """
    names = {field.name: str(field.type) for field in fields(DataSchema)}
    for name, value in stored.items():
        kind = names.get(name, "")
        parts = value if isinstance(value, (list, tuple)) and kind.startswith("tuple") else [value]
        expected = str if "str" in kind else bool if kind == "bool" else int
        fits = kind and (all(type(part) is expected for part in parts) or (value is None and "None" in kind))
        if not fits or any(isinstance(part, int) and not 0 <= part <= _LARGEST for part in parts):
            raise InputError(f"The checkpoint's data schema has {shown(str(value))} for {shown(str(name))}.")
    if "num_classes" not in stored:
        raise InputError("The checkpoint's data schema has no num_classes.")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return DataSchema(**values)


def stored_part(state: object, name: str) -> dict[str, Any]:
    """A part of what a checkpoint says of its data, such as ``schema``; a copy.

    Raises:
        InputError: It is missing, or something else than a mapping.
    """
    part = state.get(name) if isinstance(state, Mapping) else None
    if not isinstance(part, Mapping):
        raise InputError(f"The checkpoint's description of its data is damaged: it has no {name}.")
    return dict(part)


def _damaged(path: Path) -> InputError:
    return InputError(f"The checkpoint {path} cannot be read: it is truncated, damaged, or no checkpoint at all.")


def _others(path: Path) -> str:
    """What the user may have meant."""
    folder = next((folder for folder in path.parents if folder.is_dir()), Path())
    found = sorted(folder.glob("*.ckpt")) or sorted(folder.glob("checkpoints/*.ckpt"))
    return f"; {folder} has {', '.join(str(file.relative_to(folder)) for file in found)}" if found else ""
