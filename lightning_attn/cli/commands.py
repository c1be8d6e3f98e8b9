"""The command line: ``lightning-attn``, also installed as ``lightning``, and ``python -m lightning_attn``."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "lightning-attn-faithful"
_USER_FILE_ERRORS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
#: What a place says that takes nothing more: full, over the quota, read-only, a file that is too large.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
#: Environment variable with the number of the process without which this one is not to go on.
LAUNCHER = "LIGHTNING_ATTN_LAUNCHER"
_GLANCE = 0.5  # seconds between two looks whether it is there
_PATIENCE = 8.0  # seconds in which Lightning or torchrun ends the other processes after one has failed
# Nothing else is imported before a command is known: PyTorch and Lightning take seconds, and help should not.

HELP = """\
usage: lightning-attn COMMAND [OPTIONS]          (the same: lightning COMMAND, python -m lightning_attn COMMAND)

Train classifiers whose attention weights mean something, and measure it while they train.

  fit        train                lightning-attn fit --config configs/quickstart.yaml
  validate   on validation data   lightning-attn validate --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  test       on test data         lightning-attn test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  predict    into a file          lightning-attn predict --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  explain    a text               lightning-attn explain --ckpt_path RUN/checkpoints/best.ckpt --text "..." -o page.html
  report     runs together    lightning-attn report RUN RUN --names plain mitigated --output report.html
  ensemble   train several    lightning-attn ensemble --config configs/quickstart.yaml --members 10 --output runs/ten
  silent-failures  of attention in many trainings   lightning-attn silent-failures runs/ten --output page.html
  index      neighbours       lightning-attn index --ckpt_path RUN/checkpoints/best.ckpt --config RUN/config.yaml -o DIR
  heads      important ones   lightning-attn heads --model RUN --conllu FILE --output heads.json

RUN is the folder of a run, such as runs/20260101-120000-quickstart; configs/ is in a clone of the project.

  COMMAND --help            what a command takes
  --version                 which distribution this is
"""

RUN_HELP = """\
usage: lightning-attn {command} --config FILE [--config OVERLAY ...] [OPTIONS]

{description}

  --config FILE             a YAML file; later ones are laid over earlier ones. To begin with:
                            configs/quickstart.yaml in a clone of the project
  --ckpt_path FILE          {ckpt_path}
  --wandb MODE              offline (the default; needs no account), online or disabled
  --tensorboard true        write TensorBoard files into the run's folder too
  --seed_everything N       another run of the same configuration (default 0)

  Any key of the configuration is an option as well:
  --data.init_args.path DIR              where the data are
  --trainer.max_epochs N                 how long to train
  --trainer.default_root_dir DIR         where the folders of runs are made (default runs)
  --trainer.accelerator cpu|gpu          on what; --config configs/trainer/ddp.yaml for several processes
  --trainer.callbacks+=FaithfulnessCallback    append to a list
  --model.init_args.mitigation RandomPretraining --model.init_args.mitigation.init_args.epochs 3

  --print_config            print the whole configuration and stop
  --model.help, --data.help CLASS        the arguments of a class, e.g. --data.help TextDataModule
  --help-all                every option, those of Lightning's Trainer too
"""

_RUNS = {
    "fit": ("Train, measure faithfulness every epoch, and write everything into a new folder.", "go on from last.ckpt"),
    "validate": ("Measure a checkpoint on the validation data.", "whose checkpoint, such as checkpoints/best.ckpt"),
    "test": ("Measure a checkpoint on the test data.", "whose checkpoint, such as checkpoints/best.ckpt"),
    "predict": (
        "Write class probabilities and attention, or answers, of the test data into predictions.jsonl.",
        "whose checkpoint, such as checkpoints/best.ckpt",
    ),
}

#: Commands that take options of their own, and the functions that run them.
_OTHERS = {
    "explain": "lightning_attn.cli.explain.explain_command",
    "report": "lightning_attn.cli.report.report_command",
    "ensemble": "lightning_attn.cli.ensemble.ensemble_command",
    "silent-failures": "lightning_attn.cli.silent_failures.silent_failures_command",
    "index": "lightning_attn.cli.index.index_command",
    "heads": "lightning_attn.cli.heads.heads_command",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: Command and options; None means those of the process.

    Returns:
        Exit status: 0 if all went well, 2 if the user's input was wrong or nothing more can be written (one sentence
        on the standard error stream says how), 1 if the training diverged, 130 or 143 after an interruption.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    command, options = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        print(f"{DISTRIBUTION} {_version()}")
        return 0
    if command in _RUNS and options and options[-1] in ("-h", "--help"):
        description, ckpt_path = _RUNS[command]
        print(RUN_HELP.format(command=command, description=description, ckpt_path=ckpt_path), end="")
        return 0
    if command not in (*_RUNS, *_OTHERS):
        known = ", ".join((*_RUNS, *_OTHERS))
        print(f"error: There is no command {command!r}; the commands are {known}.", file=sys.stderr)
        return 2
    return _run(command, options)


def entry() -> None:
    """The console scripts: :func:`main`, and exit with its status.

    Classes that a configuration names are looked for in the current folder first, as ``python -m`` does.
    """
    if launcher := os.environ.pop(LAUNCHER, ""):  # it is not to be that of the processes that this one starts
        threading.Thread(target=_end_with, args=(int(launcher),), daemon=True).start()
    here = str(Path.cwd())
    if here not in sys.path and not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, here)
    sys.exit(main())


def _end_with(launcher: int) -> None:
    """End this process in order when the one that started it is gone, however that ended."""
    while os.getppid() == launcher:
        time.sleep(_GLANCE)
    os.kill(os.getpid(), signal.SIGTERM)


def _run(command: str, options: list[str]) -> int:
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from lightning_attn.errors import DivergedError, InputError

    try:
        if command in _OTHERS:
            module, _, function = _OTHERS[command].rpartition(".")
            status: int = getattr(importlib.import_module(module), function)(options)
        else:
            from lightning_attn.cli.training import run

            status = run([command, *["--help" if option == "--help-all" else option for option in options]])
        sys.stdout.flush()  # here, where a reader that has gone away can still be answered for
        return status
    except (InputError, MisconfigurationException) as error:
        return _refuse(str(error))
    except DivergedError as error:
        return _refuse(str(error), status=1)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):  # as rich passes it on
            raise
        # What is left in the buffer goes nowhere, or Python would complain of it when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _refuse("Who read the output has closed it, so the rest of it was not written.")
    except OSError as error:
        if error.errno in _FULL:
            return _refuse(f"{error.filename or 'A file'} could not be written: {error.strerror}.")
        if error.filename is None or not isinstance(error, _USER_FILE_ERRORS):
            raise
        return _refuse(f"{error.filename}: {error.strerror}.")
    except KeyboardInterrupt:
        return 130


def _refuse(sentence: str, status: int = 2) -> int:
    from lightning_attn.ops.text import visible
    from lightning_attn.runs.folder import is_first_process

    if not is_first_process():
        # The first process has most likely said the same by now, and will end this one. If it has not, somebody must.
        sys.stdout.flush()
        time.sleep(_PATIENCE)
    print(f"error: {visible(' '.join(sentence.split()))}", file=sys.stderr, flush=True)
    return status


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"
