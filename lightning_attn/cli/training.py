"""The commands that run a Trainer: fit, validate, test, predict."""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]  # its stubs are a distribution of their own
from jsonargparse import Namespace, get_loader, set_loader
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, TQDMProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lightning_attn import (  # noqa: F401 - names of classes
    attention,
    callbacks,
    data,
    encoders,
    experiments,
    mitigations,
    networks,
    optim,
    tasks,
)
from lightning_attn.callbacks.checkpoint import BestAndLastCheckpoint
from lightning_attn.callbacks.epoch_lines import EpochLines
from lightning_attn.callbacks.predictions import AnswersFile, PredictionsFile
from lightning_attn.callbacks.step_seed import StepSeed
from lightning_attn.cli.console import quiet
from lightning_attn.cli.parse_errors import make, refusal, sentence
from lightning_attn.cli.specification import described, differing
from lightning_attn.compat import modernized, modernized_options
from lightning_attn.data.base import AttentionDataModule
from lightning_attn.errors import DivergedError, InputError
from lightning_attn.ops.text import visible
from lightning_attn.runs.checkpoint_file import read_checkpoint
from lightning_attn.runs.class_paths import check_checkpoint, check_configuration, trusting
from lightning_attn.runs.folder import CHECKPOINTS, METRICS, discard, is_first_process, new_run_folder
from lightning_attn.runs.loggers import MetricsFile, WandbMode, finish_wandb, guard, start_wandb_loggers, use_epoch_axis
from lightning_attn.tasks import AttentionModule, QuestionAnswerer
from lightning_attn.tasks.base import FILES

_MODE = "yaml with names of 0.1.0"  # how the parser reads
#: Arguments that only fit needs.
_OF_TRAINING = ("optimizer", "lr_scheduler", "parameter_rules")


set_loader(_MODE, lambda text: modernized(get_loader("yaml")(text), warn=True), exceptions=(yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Says in one sentence what is wrong with a configuration, and reads those of 0.1.0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("parser_mode", _MODE)
        # An abbreviated option is a misspelt one: it would mean something else once there is another option like it.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an `InputError` where argparse would print its usage and exit."""
        if not self.exit_on_error:  # an attempt of the parser itself, which it handles
            super().error(message, ex)
        raise InputError(sentence(message)) from ex


class RecordConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the run's folder, and gives every logger the whole configuration."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give it to the loggers; Lightning's own habit is the module's part alone."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                use_epoch_axis(logger)
            logger.log_hyperparams(self.config.as_dict())


class AttentionCLI(LightningCLI):
    """Any model and any data by ``class_path``; every run in a folder of its own.

    Args:
        args: Command and options.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.folder = Path()
        # What is tidied up is what this process made itself, and nothing before it has made something.
        self._made: Path | None = None
        self.checkpoint: dict[str, Any] | None = None
        self._checkpoint_path = ""
        self.trainer = None  # type: ignore[assignment]  # it is set late, and looked at when something fails early
        self._wandb: list[WandbLogger] = []  # those whose runs were started here
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._trusting = ExitStack()
        try:
            with self._trusting:
                self._run(args)
        except BaseException as error:
            self._finish(failed=True)
            if _is_of_restoring(error):
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"The checkpoint {self._checkpoint_path} does not fit or is damaged: {reason}."
                ) from error
            if isinstance(error, SystemExit) and not isinstance(error, SIGTERMException) and self._interrupted:
                raise KeyboardInterrupt from error
            raise
        self._finish(failed=False)

    def _run(self, args: Sequence[str]) -> None:
        super().__init__(
            model_class=AttentionModule,
            datamodule_class=AttentionDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=RecordConfig,
            save_config_kwargs={"overwrite": True},  # the folder is new; fit may set up more than once
            parser_class=Parser,
            trainer_defaults={
                "default_root_dir": "runs",
                # The whole configuration goes to the loggers, see RecordConfig.
                "enable_autolog_hparams": False,
                # Its table lists our metrics as layers; EpochLines says how many parameters there are.
                "enable_model_summary": False,
            },
            args=modernized_options(args),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options that are ours."""
        parser.add_argument(
            "--wandb",
            type=WandbMode | None,
            default=None,
            help="Weights & Biases: offline (no account), online or disabled; null means WANDB_MODE, else offline.",
        )
        parser.add_argument(
            "--tensorboard", type=bool, default=False, help="Write TensorBoard files into the run's folder."
        )
        parser.add_argument(
            "--trust",
            nargs="+",
            help="Packages that classes of a checkpoint may come from, beside those that the configuration names.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and read the checkpoint before anything else can fail on it."""
        try:
            self.config = parser.parse_args(args)
        except UnicodeDecodeError as error:
            raise InputError(f"The configuration {_undecodable(args)} is not a text in UTF-8.") from error
        settings = self.config[self.config.subcommand]
        check_configuration(settings.model, AttentionModule, "model")
        check_configuration(settings.data, AttentionDataModule, "data")
        check_configuration(
            {"class_path": "pytorch_lightning.Trainer", "init_args": settings.trainer}, Trainer, "trainer"
        )
        self._asked = _module_arguments(settings)
        seed = settings.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise InputError(f"--seed_everything must be between 0 and {2**32 - 1}, not {seed}.")
        path = settings.get("ckpt_path")
        # Until the command ends: a black box or the network of a callback is read late.
        self._trusting.enter_context(trusting(settings.trust, settings))
        if path is not None:
            self.checkpoint, self._checkpoint_path = read_checkpoint(path), str(path)
        elif self.config.subcommand != "fit" and not _is_trained(settings.model):
            raise InputError(
                f"{self.config.subcommand} would measure random weights: give --ckpt_path "
                f"{_best_checkpoint(settings.get('config') or [])}."
            )
        # Files written elsewhere must not run code, and predictions go to a file.
        settings.weights_only = True
        if "return_predictions" in settings:
            settings.return_predictions = False

    def _parse_ckpt_path(self) -> None:
        """Let the checkpoint's description of the module overrule the configuration's, if it has one.

        Raises:
            InputError: It names a class that it may not name, see :func:`check_checkpoint`.
        """
        stored = {} if self.checkpoint is None else dict(self.checkpoint.get("hyper_parameters", {}))
        if "network" not in stored:
            return  # a checkpoint written from Python describes plain arguments alone, which say nothing about it
        settings = self.config[self.config.subcommand]
        class_path = stored.pop("_class_path", settings.model.class_path)
        stored.pop("_instantiator", None)
        # What is a matter of the user's machine, or of training alone, stays what the configuration says.
        for name in (*FILES, *(() if self.config.subcommand == "fit" else _OF_TRAINING)):
            stored.pop(name, None)
        check_checkpoint({"class_path": class_path, "init_args": stored}, AttentionModule, "model")
        kept = self._asked if class_path == settings.model.class_path else {}
        settings.model = None  # nothing of the configuration is to be mixed into the checkpoint's arguments
        model = {"class_path": class_path, "init_args": {**kept, **stored}}
        self.config = self.parser.parse_object({self.config.subcommand: {"model": model}}, self.config)

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(make, object, subclasses=True)

    def before_instantiate_classes(self) -> None:
        """Make the run's folder, and say what will be trained, which a checkpoint decides."""
        trainer = self.settings.trainer
        if trainer.fast_dev_run:
            self._scratch = tempfile.TemporaryDirectory()
            self.folder = Path(self._scratch.name)
        elif is_first_process():
            self.folder = self._made = new_run_folder(trainer.default_root_dir, self._run_name())
        else:
            # Only the first process writes. The others ask it where, once they can: `folder_of` broadcasts.
            self.folder = Path(trainer.default_root_dir)
        if is_first_process():
            used = _module_arguments(self.settings)
            if self.checkpoint is not None and (differences := differing(self._asked, used)):
                print(f"The checkpoint decides what the configuration says otherwise: {visible(differences)}.")
            print(f"Mitigation: {visible(described(used.get('mitigation'))) or 'none'}", flush=True)

    @property
    def settings(self) -> Any:
        """The configuration of the subcommand."""
        return self.config[self.subcommand]

    def instantiate_classes(self) -> None:
        """Make module, data and trainer.

        Raises:
            InputError: An argument has a value that its class refuses.
        """
        try:
            super().instantiate_classes()
        except (ValueError, OSError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(refusal(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer, with the run's folder, loggers and callbacks in it."""
        given = self.config_init[self.subcommand].trainer
        return super().instantiate_trainer(
            default_root_dir=str(self.folder),
            logger=self._loggers(given.logger) if not given.fast_dev_run else False,
            callbacks=self._callbacks(given),
            **kwargs,
        )

    def after_instantiate_classes(self) -> None:
        """Let data be read as those were that the checkpoint was trained on."""
        if self.checkpoint is not None:
            self.datamodule.restore(self.checkpoint["data"])
            self.checkpoint = None  # Lightning reads the weights itself

    def _run_name(self) -> str:
        configs = [Path(str(path)).stem for path in self.settings.get("config") or []]
        stem = configs[0] if configs and configs[0] != "config" else ""
        if self.subcommand == "fit":
            return stem or "fit"
        return f"{self.subcommand}-{stem}" if stem else str(self.subcommand)

    def _loggers(self, given: Any) -> list[Logger]:
        chosen = [] if isinstance(given, bool) or given is None else given
        configured: list[Logger] = chosen if isinstance(chosen, list) else [chosen]
        theirs = [logger for logger in configured if isinstance(logger, WandbLogger)]
        loggers = [MetricsFile(self.folder), *(logger for logger in configured if logger not in theirs)]
        if given is not False and is_first_process():
            self._wandb = start_wandb_loggers(theirs, self.folder, self.settings.wandb)
            loggers += self._wandb
        if self.settings.tensorboard:
            try:
                loggers.append(TensorBoardLogger(self.folder, name="", version="tensorboard", default_hp_metric=False))
            except ModuleNotFoundError as error:
                raise InputError("--tensorboard needs the package tensorboard: pip install tensorboard.") from error
        return [guard(logger) for logger in loggers]

    def _callbacks(self, given: Any) -> list[Callback]:
        chosen = given.callbacks or []
        all_callbacks: list[Callback] = list(chosen) if isinstance(chosen, list) else [chosen]
        ours: list[Callback] = [EpochLines()]
        if self.settings.seed_everything is not False:
            ours.append(StepSeed(self.settings.seed_everything))
        if given.enable_checkpointing is not False:
            ours.append(BestAndLastCheckpoint(self.model.monitor, self.model.mode))
        if self.subcommand == "predict":
            ours.append(AnswersFile() if isinstance(self.model, QuestionAnswerer) else PredictionsFile())
        if given.enable_progress_bar is None and not any(isinstance(item, ProgressBar) for item in all_callbacks):
            # In a file, a bar is thousands of lines that say nothing; there is a line for each epoch anyway.
            if sys.stderr.isatty():
                ours.insert(0, TQDMProgressBar())  # before EpochLines, which prints through it
            else:
                given.enable_progress_bar = False
        kinds = {type(item) for item in all_callbacks}
        return [item for item in ours if type(item) not in kinds] + all_callbacks

    @property
    def _interrupted(self) -> bool:
        return self.trainer is not None and self.trainer.interrupted

    def _finish(self, failed: bool) -> None:
        """End what was started, and say where everything is."""
        launcher = None if self.trainer is None else self.trainer.strategy.launcher
        if failed and launcher is not None:
            launcher.kill(signal.SIGKILL)  # the other processes wait for this one, and would complain that it is gone
        if self._scratch is not None:
            self._scratch.cleanup()
            return
        for logger in self._wandb:
            finish_wandb(logger, failed)
        if self._made is None or not self._made.is_dir():
            return
        if failed and not (self._made / METRICS).exists() and not (self._made / CHECKPOINTS).exists():
            discard(self._made)  # nothing came of this run: a folder would be one to look into for nothing
            return
        shown = _readable(self.folder)
        print(f"Run folder: {shown}")
        last = self.folder / CHECKPOINTS / "last.ckpt"
        if failed and self._interrupted and last.is_file():
            print(f"To go on, give the same command and --ckpt_path {shlex.quote(str(_readable(last)))}")
        for offline in self.folder.glob("wandb/offline-run-*"):
            print(f"To upload it to Weights & Biases: wandb sync {shlex.quote(str(_readable(offline)))}")


def run(args: Sequence[str]) -> int:
    """Run a command that needs a Trainer.

    Args:
        args: Command and options.

    Returns:
        Exit status.

    Raises:
        InputError: The user's input was wrong.
        KeyboardInterrupt: The user stopped it; Lightning shut it down in order.
    """
    with quiet():
        try:
            AttentionCLI(args)
        except SIGTERMException:
            return 128 + signal.SIGTERM
        except SystemExit as request:  # after a help text
            return int(request.code or 0)
    return 0


def _is_of_restoring(error: BaseException) -> bool:
    """Whether an error came while Lightning put what a checkpoint holds into place; it has no error of its own."""
    kinds = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)
    if isinstance(error, (InputError, DivergedError)) or not isinstance(error, kinds):
        return False
    return any(frame.name.startswith(("restore", "_restore")) for frame in traceback.extract_tb(error.__traceback__))


def _undecodable(args: Sequence[str]) -> str:
    """The configuration file that cannot be read as text."""
    for option in args:
        path = Path(option.partition("=")[2] if option.startswith("--") else option)
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return str(path)
        except (OSError, ValueError):
            continue
    return "file"


def _is_trained(model: Namespace) -> bool:
    """Whether the network comes with a classifier of its own, as a fine-tuned model of the Hub does."""
    network = model.get("init_args.network.class_path")
    return str(network).rpartition(".")[2] in ("TransformerNetwork", "TransformerQANetwork")


def _best_checkpoint(configs: Sequence[Any]) -> str:
    """Where the best checkpoint lies, if a configuration is that of a run."""
    for config in configs:
        for name in (f"{CHECKPOINTS}/best.ckpt", f"{CHECKPOINTS}/last.ckpt", "ensemble.ckpt"):
            if (path := Path(str(config)).parent / name).is_file():
                return str(path)
    return "RUN/checkpoints/best.ckpt"


def _module_arguments(settings: Any) -> dict[str, Any]:
    """How the module is specified, as plain values; a checkpoint's specification is stored among ``dict_kwargs``."""
    model = settings.model.as_dict()
    return {**model.get("init_args", {}), **model.get("dict_kwargs", {})}


def _readable(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
