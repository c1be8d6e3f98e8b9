"""``lightning index``: the training texts as a checkpoint sees them, for explanations that borrow from them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import (  # type: ignore[attr-defined]  # public, but re-exported by a star
    ActionConfigFile,
    Namespace,
)
from pytorch_lightning.cli import LightningArgumentParser

from lightning_attn import attribution
from lightning_attn.attribution.lafa import LAYERS, NeighbourIndex
from lightning_attn.cli.arguments import Arguments
from lightning_attn.cli.console import quiet
from lightning_attn.cli.training import Parser
from lightning_attn.compat import modernized_options
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.errors import InputError
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.runs.checkpoint_file import read_checkpoint
from lightning_attn.runs.class_paths import check_configuration, trusting

#: What else a configuration file of a run holds; nothing here needs it.
_ELSEWHERE = ("model", "trainer", "seed_everything", "ckpt_path", "wandb", "tensorboard", "weights_only", "trust")


def index_command(options: Sequence[str]) -> int:
    """Run ``lightning index``.

    Args:
        options: What stands after the command.

    Returns:
        Exit status.

    Raises:
        InputError: The user's input was wrong.
    """
    options_parser = _parser()
    try:
        arguments, data = options_parser.parse_known_args(list(options))
    except SystemExit:  # after the help
        return 0
    if arguments.max_tokens < 1:
        raise InputError(f"--max_tokens must be at least 1, not {arguments.max_tokens}.")
    attribution.get(arguments.base)  # before anything is read
    with quiet():
        if not Path(arguments.ckpt_path).expanduser().is_file():
            read_checkpoint(arguments.ckpt_path)  # says what there is instead
        parser = _data_parser()
        settings = parser.parse_args([f"--config={path}" for path in arguments.config] + modernized_options(data))
        with trusting(arguments.trust, settings.model):
            trained = TrainedNetwork.read(arguments.ckpt_path)
        datamodule = _datamodule(parser, settings)
        datamodule.restore(trained.data)
        datamodule.prepare_data()
        datamodule.setup("fit")
        network = trained.network.to("cuda" if torch.cuda.is_available() else "cpu")
        start = time.monotonic()
        index = NeighbourIndex.build(
            network,
            datamodule,
            arguments.output,
            layer=arguments.layer,
            base=arguments.base,
            options=_options(arguments.base_options),
            max_tokens=arguments.max_tokens,
        )
    size = sum(file.stat().st_size for file in index.path.iterdir())
    print(
        f"Index of {len(index):,} training texts, {size / 1e6:,.1f} MB, {time.monotonic() - start:.0f} s: {index.path}"
    )
    print(
        f"To use it: lightning-attn explain --ckpt_path {arguments.ckpt_path} --method lafa --neighbours {index.path} "
        '--text "..." --output page.html',
        file=sys.stderr,
    )
    return 0


def _parser() -> Arguments:
    parser = Arguments(
        "index",
        "Read the training texts once with a checkpoint, and keep a vector and the importance of every token of each: "
        "explain --method lafa borrows from those that are near. Interrupted, it goes on when it is given again. "
        "Other options are those of the data, such as --data.init_args.path DIR.",
        "lightning-attn index --ckpt_path runs/RUN/checkpoints/best.ckpt --config runs/RUN/config.yaml --output index",
    )
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint that fit wrote; the index is for it alone")
    parser.add_trust()
    parser.add_argument(
        "--config", action="append", default=[], help="where the data are described, such as the run's config.yaml"
    )
    parser.add_argument("-o", "--output", required=True, help="folder for the index, made if it is not there")
    parser.add_argument(
        "--layer",
        default="keys",
        help="texts are near by the mean of this layer's states: "
        f"{', '.join(LAYERS)}, or hidden:K of a pretrained encoder (default: %(default)s)",
    )
    parser.add_argument(
        "--base",
        default="simple_gradient",
        help="attribution whose scores are kept and borrowed, such as simple_gradient, input_gradient, smooth_gradient "
        "or gradient_x_input (default: %(default)s)",
    )
    parser.add_argument("--base_options", default="{}", help="its options as JSON, such as '{\"samples\": 25}'")
    parser.add_argument(
        "--max_tokens", type=int, default=16384, help="positions read at once, padding included (default: %(default)s)"
    )
    return parser


def _options(given: str) -> dict[str, Any]:
    try:
        options = json.loads(given)
    except json.JSONDecodeError as error:
        raise InputError(
            f"--base_options must be JSON such as '{{\"samples\": 25}}', not {given!r} ({error})."
        ) from None
    if not isinstance(options, dict):
        raise InputError(f"--base_options must be a JSON object such as '{{\"samples\": 25}}', not {given!r}.")
    return options


def _data_parser() -> LightningArgumentParser:
    """Reads what configuration files and ``--data...`` options say of the data."""
    parser: LightningArgumentParser = Parser(prog="lightning-attn index")
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_subclass_arguments(AttentionDataModule, "data", fail_untyped=False, required=True)
    for name in _ELSEWHERE:
        parser.add_argument(f"--{name}", type=Any, default=None)
    return parser


def _datamodule(parser: LightningArgumentParser, settings: Namespace) -> AttentionDataModule:
    check_configuration(settings.data, AttentionDataModule, "data")
    for name in _ELSEWHERE:
        settings[name] = None  # nothing of it is to be made
    try:
        made: AttentionDataModule = parser.instantiate_classes(settings).data
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(" ".join(str(error).split())) from error
    return made
