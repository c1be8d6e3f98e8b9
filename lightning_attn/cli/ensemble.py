"""``lightning ensemble``: several trainings of one configuration, and one checkpoint of them all."""

from __future__ import annotations

import contextlib
import io
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]  # its stubs are a distribution of their own
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from lightning_attn.cli.arguments import Arguments
from lightning_attn.cli.console import quiet
from lightning_attn.cli.ensemble_folder import CHECKPOINT, EnsembleFolder, metrics_of
from lightning_attn.cli.members import Failure, Launcher, Member, cores, visible_gpus
from lightning_attn.cli.training import run
from lightning_attn.errors import InputError
from lightning_attn.networks.combinations import COMBINATIONS, get_combination
from lightning_attn.ops.text import visible
from lightning_attn.runs.folder import CONFIG, new_run_folder

#: Options of fit that mean nothing here, and what to do instead.
_REFUSED = {
    "--seed_everything": "give the first member's seed with --seed",
    "--ckpt_path": "to go on with members that were killed, give the same command with --output and their folder",
    "--print_config": "give it to fit",
    "--trainer.fast_dev_run": "give it to fit",
}
#: What is said of a member when it has finished, as far as it was logged.
_SHOWN = ("val/loss", "val/accuracy", "val/auroc", "val/instances/auroc", "val/plausibility/auroc")


def ensemble_command(options: Sequence[str]) -> int:
    """Run ``lightning ensemble``.

    Args:
        options: What stands after the command.

    Returns:
        Exit status: 1 if a member failed, 2 if that was a mistake in what the user gave.

    Raises:
        InputError: The user's input was wrong.
    """
    parser = _parser()
    try:
        arguments, fit = parser.parse_known_args(list(options))
    except SystemExit:  # after the help
        return 0
    for name, least in (("members", 1), ("seed", 0), ("jobs", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"ensemble: --{name} must be at least {least}, not {value}.")
    for option in fit:
        if (name := option.split("=")[0]) in _REFUSED:
            raise InputError(f"ensemble takes no {name}: {_REFUSED[name]}.")
    combination = get_combination(arguments.combination)
    config = _resolved(fit)
    if config["trainer"].get("enable_checkpointing") is False:
        raise InputError("ensemble puts the checkpoints of its members together: leave enable_checkpointing out.")
    place = Path(arguments.output).expanduser().absolute() if arguments.output else _new_folder(config, fit)
    folder = EnsembleFolder(place, config)
    members = folder.members(arguments.members, arguments.seed, arguments.vary_data_seed)
    if not arguments.output:
        print(f"Ensemble folder: {place}; if this is interrupted, give the same command with --output {place}")
    failures = _train(members, arguments.jobs or min(len(visible_gpus()) or cores(), len(members)))
    if failures:
        return _tell(failures, options, place)
    with quiet():
        folder.finish(members, arguments.combination, combination)
    given, checkpoint = shlex.quote(str(place / CONFIG)), shlex.quote(str(place / CHECKPOINT))
    print(f"Ensemble folder: {place}")
    print(f"To measure it: lightning-attn test --config {given} --ckpt_path {checkpoint}")
    return 0


def _parser() -> Arguments:
    parser = Arguments(
        "ensemble",
        "Train one configuration several times, with seeds of their own, and put the networks together. Every other "
        "option is one of fit, and holds for all members. Data and their order are the same for all, unless "
        "--vary_data_seed; the start of the network, dropout and whatever else is drawn in training differ.",
        "lightning-attn ensemble --config configs/quickstart.yaml --members 10 --output runs/ten",
    )
    parser.add_argument("--members", type=int, default=5, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others count on (default: %(default)s)")
    parser.add_argument(
        "--jobs",
        type=int,
        help="trainings at a time (default: one a GPU, without GPU one a core; they share the cores)",
    )
    parser.add_argument(
        "--output",
        help="folder; if it holds members of this configuration, those that have finished are kept and those that were "
        "killed go on (default: a new folder under --trainer.default_root_dir)",
    )
    parser.add_argument(
        "--combination",
        default="mean",
        help=f"of attention and probabilities: {', '.join(COMBINATIONS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--vary_data_seed",
        action="store_true",
        help="let data.init_args.seed count on too: another order of the training examples for each member, and other "
        "splits or examples where the data module draws them; what is test to one may then be train to another",
    )
    return parser


def _resolved(fit: list[str]) -> dict[str, Any]:
    """The whole configuration, as ``fit --print_config`` gives it."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run(["fit", *fit, "--print_config"])
    config: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return config


def _new_folder(config: dict[str, Any], fit: list[str]) -> Path:
    given = [fit[place + 1] for place, option in enumerate(fit[:-1]) if option == "--config"]
    given += [option.removeprefix("--config=") for option in fit if option.startswith("--config=")]
    name = "-".join(["ensemble", *(Path(path).stem for path in given[:1])])
    return new_run_folder(config["trainer"]["default_root_dir"], name)


def _train(members: list[Member], jobs: int) -> list[Failure]:
    """Train whoever has not finished; returns whoever failed."""
    kept = [member for member in members if member.finished]
    if kept:
        print(f"Finished already: {len(kept)} of {len(members)} members.", flush=True)
    failures = []
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        _terminated_in_order(),
        contextlib.closing(Launcher(jobs).train(members)) as trained,
    ):
        bar = progress.add_task("Members", total=len(members), completed=len(kept))
        for member, failure in trained:
            progress.advance(bar)
            if failure is not None:
                failures.append(failure)
                continue
            figures = metrics_of(member)
            shown = ", ".join(f"{name} {figures[name]:.4f}" for name in _SHOWN if figures.get(name) is not None)
            print(f"{member.name.capitalize()} has finished{': ' if shown else ''}{shown}", flush=True)
    return failures


@contextlib.contextmanager
def _terminated_in_order() -> Iterator[None]:
    """Let a request to terminate unwind the stack, so that the members' processes are ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(failures: list[Failure], options: Sequence[str], place: Path) -> int:
    """Say who failed and why, and how to go on."""
    wrong = [failure for failure in failures if failure.users]
    for failure in wrong[:1] or failures:  # the same mistake is the same for all
        print(f"error: {failure.member.name.capitalize()}: {visible(failure.sentence)}", file=sys.stderr, flush=True)
    if wrong:
        return 2
    again = "" if any(option.split("=")[0] == "--output" for option in options) else f" with --output {place}"
    print(f"To train what is missing, give the same command{again} again.", file=sys.stderr, flush=True)
    return 1
