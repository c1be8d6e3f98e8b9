"""A trained network out of a checkpoint, by itself: `TrainedNetwork`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from lightning_attn.compat import modernized
from lightning_attn.errors import InputError
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import check_weights
from lightning_attn.runs.checkpoint_file import read_checkpoint, read_schema
from lightning_attn.runs.class_paths import check_checkpoint, trusting

_PREFIX = "network."


@dataclass
class TrainedNetwork:
    """A network that is not trained any more, and what is needed to make it again.

    Attributes:
        network: Built, in evaluation mode, without gradients.
        specification: ``{"class_path": ..., "init_args": ...}`` of the network; None if it was made in Python.
        data: What describes the data that it was trained on, as a data module exports it: vocabulary, class names.
    """

    network: AttentionNetwork
    specification: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path, trust: str | Iterable[str] = ()) -> TrainedNetwork:
        """The network of a checkpoint, on the CPU.

        The file holds tensors and plain values only, see :func:`read_checkpoint`; classes are found by their names,
        and only where :func:`check_checkpoint` allows it.
        What a mitigation has in the checkpoint is passed over: it only matters in training.

        Args:
            path: A checkpoint that ``lightning fit`` wrote.
            trust: Packages of the user's own that classes of the network may come from, beside those that are imported.

        Raises:
            InputError: There is no such checkpoint, it cannot be read, it does not describe its network, or a class
                that it names may not be used or cannot be imported.
        """
        checkpoint = read_checkpoint(path)
        specification = checkpoint.get("hyper_parameters", {}).get("network")
        if specification is None:
            raise InputError(
                f"The checkpoint {path} was written from Python, without a description of its network; in Python, load "
                "it with AttentionClassifier.load_from_checkpoint(path, network=...) and use that module's network."
            )
        weights = {
            name.removeprefix(_PREFIX): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(_PREFIX)
        }
        state = {
            "specification": specification,
            "schema": checkpoint["schema"],
            "data": checkpoint["data"],
            "weights": weights,
        }
        try:
            with trusting(trust):
                return cls.from_state(state)
        except InputError as error:
            raise InputError(f"The network of the checkpoint {path} cannot be made: {error}") from error

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TrainedNetwork:
        """Make it again from :meth:`state`.

        Raises:
            InputError: A class cannot be imported, refuses its arguments, or has other weights by now.
        """
        specification = modernized(state["specification"])
        schema = read_schema(state["schema"])
        try:
            network = _made(specification).build(schema)
        except InputError:
            raise
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"it cannot be made of what it says of itself: {' '.join(str(error).split())}.") from error
        check_weights(network, state["weights"])
        try:
            network.load_inference_state(state["weights"])
        except RuntimeError as error:
            raise InputError(" ".join(str(error).split())) from error
        return cls(network.eval().requires_grad_(False), specification, state["data"])

    def state(self) -> dict[str, Any]:
        """Tensors and plain values that a checkpoint can hold; see :meth:`from_state`."""
        return {
            "specification": self.specification,
            "schema": self.network.schema.as_dict(),
            "data": self.data,
            "weights": self.network.inference_state(),
        }


def load_network(path: str | Path, trust: str | Iterable[str] = ()) -> AttentionNetwork:
    """The trained network of a checkpoint, in evaluation mode, on the CPU; see :meth:`TrainedNetwork.read`.

    Args:
        path: A checkpoint that ``lightning fit`` wrote.
        trust: Packages of the user's own that classes of the network may come from, beside those that are imported.

    Raises:
        InputError: The checkpoint cannot be used for this.
    """
    return TrainedNetwork.read(path, trust).network


def _made(specification: dict[str, Any]) -> AttentionNetwork:
    check_checkpoint(specification, AttentionNetwork, "network")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AttentionNetwork, "network", fail_untyped=False)
    try:
        made: AttentionNetwork = parser.instantiate_classes(parser.parse_object({"network": specification})).network
    except ArgumentError as error:
        raise InputError(f"its classes take other arguments by now: {' '.join(str(error).split())}") from error
    return made
