"""What ``lightning ensemble`` leaves in its folder, and knows it by when the command is given again."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]  # its stubs are a distribution of their own

from lightning_attn.cli.members import Member
from lightning_attn.errors import DivergedError, InputError
from lightning_attn.networks import AttentionEnsemble, Combination
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.ops.evaluation import not_finite
from lightning_attn.ops.files import replacing, write_text
from lightning_attn.ops.text import to_json
from lightning_attn.runs.class_paths import trusting
from lightning_attn.runs.folder import CONFIG, METRICS
from lightning_attn.visualization.curves import read_run

FIT = "fit.yaml"
CHECKPOINT = "ensemble.ckpt"
RECORD = "ensemble.json"


class EnsembleFolder:
    """The members' configuration ``fit.yaml``, their runs, and in the end one checkpoint and its configuration.

    Args:
        path: A new or empty folder; or one in which an ensemble of the same configuration was begun.
        config: What the members are trained with.

    Raises:
        InputError: The folder holds something else.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        known = path / FIT
        if path.exists() and not path.is_dir():
            raise InputError(f"--output {path} is a file; give the name of a folder.")
        begun = {f"{FIT}.part"}  # of a command that was killed when it had just begun
        if path.is_dir() and not known.is_file() and any(entry.name not in begun for entry in path.iterdir()):
            raise InputError(f"--output {path} holds something else than an ensemble; give a new folder.")
        path.mkdir(parents=True, exist_ok=True)
        if not known.is_file():
            write_text(known, yaml.safe_dump(config, sort_keys=False))
        elif yaml.safe_load(known.read_text()) != config:
            raise InputError(
                f"{path} holds members of another configuration, see {FIT} there; give another --output, or the "
                "options that it was begun with."
            )

    def members(self, count: int, seed: int, vary_data_seed: bool) -> list[Member]:
        """Who is to be trained, and who has been.

        Args:
            count: How many.
            seed: Of the first; the others count on.
            vary_data_seed: Whether the data module's seed counts on too.

        Raises:
            InputError: The folder was begun with other seeds.
        """
        seeds = {"seed": seed, "vary_data_seed": vary_data_seed}
        begun = self.path / RECORD
        if not begun.is_file():
            write_text(begun, json.dumps(seeds, indent=1) + "\n")
        elif any((earlier := json.loads(begun.read_text()))[name] != value for name, value in seeds.items()):
            was = " and ".join(f"{name} {earlier[name]}" for name in seeds)
            raise InputError(f"The ensemble in {self.path} was begun with {was}; give the same, or another --output.")
        first_data_seed = self.config["data"].get("init_args", {}).get("seed", 0)
        members = []
        for number in range(count):
            place = self.path / "members" / f"{number:02d}"
            own = ["--config", str(self.path / FIT), f"--seed_everything={seed + number}"]
            own.append(f"--trainer.default_root_dir={place}")
            if vary_data_seed:
                own.append(f"--data.init_args.seed={first_data_seed + number}")
            members.append(Member(number, seed + number, place, own))
            members[-1].recognise()
        return members

    def finish(self, members: Sequence[Member], name: str, combination: Combination) -> None:
        """Put the trained members together, and write the ensemble's checkpoint, configuration and record.

        Args:
            members: All of them trained.
            name: Registered name of the combination.
            combination: How they are combined.

        Raises:
            InputError: A checkpoint is missing, or the members read different vocabularies.
            DivergedError: The weights of a member are not finite.
        """
        with trusting(self.config.get("trust"), self.config):
            trained = [TrainedNetwork.read(member.checkpoint) for member in members]
        for member, one in zip(members, trained, strict=True):
            if reason := not_finite(one.network):
                raise DivergedError(
                    f"{member.name.capitalize()} says nothing: {reason}. Its training diverged; train in another "
                    "--output with a smaller learning rate."
                )
            if one.data != trained[0].data:
                raise InputError(
                    f"{member.name.capitalize()} was trained with another vocabulary or other classes than member 0, "
                    "so they cannot read the same batches; leave --vary_data_seed out, or give a fixed vocabulary."
                )
        specification = {
            "class_path": "lightning_attn.networks.AttentionEnsemble",
            "init_args": {
                "members": [one.specification for one in trained],
                "combination": {"class_path": f"lightning_attn.networks.{type(combination).__name__}"},
            },
        }
        network = AttentionEnsemble([one.network for one in trained], combination)
        self._write_checkpoint(network, specification, trained[0].data)
        write_text(
            self.path / CONFIG, yaml.safe_dump({**self.config, "model": self._model(specification)}, sort_keys=False)
        )
        self._write_record(members, name)

    def _model(self, network: dict[str, Any]) -> dict[str, Any]:
        """The members' module, with the ensemble in place of the network."""
        model = self.config["model"]
        return {**model, "init_args": {**model["init_args"], "network": network, "mitigation": None}}

    def _write_checkpoint(
        self, network: AttentionEnsemble, specification: dict[str, Any], data: dict[str, Any]
    ) -> None:
        """What a Trainer would write for a module with this network: tensors and plain values."""
        model = self._model(specification)
        checkpoint = {
            "epoch": 0,
            "global_step": 0,
            "pytorch-lightning_version": version("pytorch-lightning"),
            "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
            "hparams_name": "kwargs",
            "hyper_parameters": {
                "_class_path": model["class_path"],
                **model["init_args"],
                "_instantiator": "pytorch_lightning.cli.instantiate_module",
            },
            "schema": network.schema.as_dict(),
            "data": data,
        }
        content = io.BytesIO()  # written to a disk that is full, PyTorch would raise what says nothing of a disk
        torch.save(checkpoint, content)
        with replacing(self.path / CHECKPOINT) as unfinished:
            unfinished.write_bytes(content.getbuffer())

    def _write_record(self, members: Sequence[Member], combination: str) -> None:
        begun = json.loads((self.path / RECORD).read_text())
        described = [
            {
                "seed": member.seed,
                "checkpoint": str(member.checkpoint.relative_to(self.path)),
                "command": member.record["command"],
                "metrics": metrics_of(member),
            }
            for member in members
        ]
        record = {**begun, "combination": combination, "members": described}
        write_text(self.path / RECORD, to_json(record, indent=1) + "\n")


def metrics_of(member: Member) -> dict[str, float | None]:
    """What was logged in the epoch of a trained member's checkpoint; None where it was not a number."""
    epoch = int(torch.load(member.checkpoint, map_location="cpu", weights_only=True)["epoch"])
    figures: dict[str, float] = {}
    for run in member.runs:  # the checkpoint may be of an epoch before a kill, whose figures are in an earlier run
        if (run / METRICS).is_file():
            curves = read_run(run).curves
            figures.update({name: points[epoch] for name, points in curves.items() if epoch in points})
    return {name: value if math.isfinite(value) else None for name, value in sorted(figures.items())}
