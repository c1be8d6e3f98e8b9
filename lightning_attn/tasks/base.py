"""What every LightningModule here has in common, whatever its loss: `AttentionModule`."""

from __future__ import annotations

import difflib
import warnings
from abc import abstractmethod
from argparse import ArgumentError
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from typing_extensions import Self, override

from lightning_attn.data.base import AttentionDataModule
from lightning_attn.errors import InputError, shown
from lightning_attn.hub.models import complete_specification
from lightning_attn.mitigations.base import Mitigation, MitigationCarrier
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import check_same_data, check_weights, is_plain
from lightning_attn.optim import ParameterRule, StepSchedule, parameter_groups
from lightning_attn.runs.checkpoint_file import read_checkpoint, read_schema
from lightning_attn.runs.class_paths import check_checkpoint, trusting
from lightning_attn.tasks.divergence import DivergenceGuard
from lightning_attn.types import DataSchema

#: Arguments of modules that name files: a checkpoint does not decide them.
FILES = ("black_box",)


class AttentionModule(MitigationCarrier, LightningModule):
    """Builds a network for the data, trains it under a mitigation, and stores it so that it can be made again.

    A subclass makes its metrics in :meth:`make_metrics` and writes the steps.

    Args:
        network: What is trained; its layers are made when the data are known.
        mitigation: What keeps label information out of the attention; None means ``NoMitigation()``.
        optimizer: From parameters to an optimiser.
        lr_scheduler: From an optimiser to a scheduler, which steps once per epoch; with every step of the optimiser if
            its class says ``interval = "step"``, as :class:`~lightning_attn.optim.WarmupLinear` does. None
            keeps the rate.
        parameter_rules: What differs between parameters, such as
            :class:`~lightning_attn.optim.LayerRates`; None treats all alike.

    Attributes:
        monitor: Name of the figure that decides which checkpoint is the best.
        mode: Whether ``min`` or ``max`` of it is best.
    """

    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"

    def __init__(
        self,
        network: AttentionNetwork,
        mitigation: Mitigation | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        parameter_rules: list[ParameterRule] | None = None,
    ) -> None:
        super().__init__()
        # Run from Python, the arguments are modules, which a checkpoint must not hold (it would have to be unpickled);
        # run from the command line, Lightning records their configuration in place of them.
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Attribute '(network|mitigation|black_box)' is an instance of `nn.Module`"
            )
            self.save_hyperparameters()
        for name in [name for name, value in self.hparams.items() if not is_plain(value)]:
            del self.hparams[name]
        self.network = network
        if mitigation is not None:
            self.set_mitigation(mitigation)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.parameter_rules = parameter_rules or []
        self.data_state: dict[str, Any] = {}
        self._rates: dict[nn.Module, float] = {}
        self._knows_words = False  # whether the word vectors were loaded, or weights that replace them
        if network.built:
            self.make_metrics(network.schema)

    @classmethod
    @override
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's is a descriptor of its own
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        *args: Any,
        trust: str | Iterable[str] = (),
        **kwargs: Any,
    ) -> Self:
        """The module of a checkpoint, as Lightning loads it, if what the checkpoint has made belongs there.

        Args:
            checkpoint_path: A checkpoint of such a module.
            map_location: Where its tensors go.
            *args: See Lightning.
            trust: Packages of the user's own that its classes may come from, beside modules that are imported.
            **kwargs: See Lightning; arguments of the module that the checkpoint does not describe.

        Raises:
            InputError: The checkpoint cannot be read, names a class that it may not name, or a file to be read.
        """
        stored = read_checkpoint(checkpoint_path).get("hyper_parameters", {})
        described = {name: value for name, value in stored.items() if name not in ("_class_path", "_instantiator")}
        described = {name: value for name, value in described.items() if name not in kwargs}
        if "_instantiator" in stored:  # else it describes plain values alone
            if files := [name for name in FILES if name in described]:
                raise InputError(
                    f"The checkpoint {checkpoint_path} names the file {described[files[0]]} for {files[0]}, and a file "
                    f"does not decide what else is read: give {files[0]}=PATH."
                )
            own = stored.get("_class_path", f"{cls.__module__}.{cls.__qualname__}")
            with trusting(trust):
                check_checkpoint({"class_path": own, "init_args": described}, AttentionModule, "model")
            # Lightning reads the file again; what was checked has today's names.
            kwargs = {**described, "_class_path": own, **kwargs}
        kwargs.setdefault("weights_only", True)
        try:
            module: Self = super().load_from_checkpoint(checkpoint_path, map_location, *args, **kwargs)
        except InputError:
            raise
        except (ArgumentError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"The checkpoint {checkpoint_path} does not fit or is damaged: {reason}.") from error
        return module

    @override
    def _carried_mitigation(self) -> Mitigation:
        return self.network.mitigation

    @override
    def set_mitigation(self, mitigation: Mitigation) -> None:
        self.network.set_mitigation(mitigation)

    def setup(self, stage: str) -> None:
        """Make the network's layers for the data, and check that data, network and strategy fit together.

        Raises:
            InputError: The data have other classes or another vocabulary than the network; or the strategy is DDP
                without a search for unused parameters, which a mitigation that freezes parameters needs.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        if isinstance(datamodule, AttentionDataModule):
            if not self.network.built:
                self._build(datamodule.schema)
            if stage == "fit" and not self._knows_words and (vectors := datamodule.word_vectors()) is not None:
                self.network.load_word_vectors(vectors)
                self._knows_words = True
            check_same_data(self.network.schema, datamodule.schema)
            self._adopt(datamodule.export())
        if stage == "fit":
            self._check_training()

    def _check_training(self) -> None:
        if self.network.untrainable:
            raise InputError(self.network.untrainable)
        pretraining, last = self.mitigation.random_epochs, self.trainer.max_epochs
        if not getattr(self.trainer, "fast_dev_run", False) and last is not None and 0 < last <= pretraining:
            # No error: a training may be cut into pieces and resumed.
            rank_zero_warn(
                f"Training stops after {last} epochs and random pretraining takes {pretraining}: the scorer has not "
                f"learned anything then. Set --trainer.max_epochs above {pretraining}, or pretrain for fewer epochs."
            )
        strategy = self.trainer.strategy
        searches = isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs.get("find_unused_parameters", False)
        if self.mitigation.freezes and isinstance(strategy, DDPStrategy) and not searches:
            raise InputError(
                f"{type(self.mitigation).__name__} freezes parameters during training, which DDP does not expect; use "
                "--trainer.strategy=ddp_find_unused_parameters_true, as configs/trainer/ddp.yaml does."
            )

    def configure_callbacks(self) -> list[Callback]:
        """A guard that ends a training which diverged, and measures no network that did."""
        return [DivergenceGuard()]

    def on_fit_start(self) -> None:
        """See before the first epoch, and not after it, that what callbacks monitor will be logged.

        Raises:
            InputError: A callback monitors what neither this module nor a callback logs.
        """
        for callback in vars(self.trainer)["callbacks"]:
            self._check_monitor(type(callback).__name__, getattr(callback, "monitor", None))

    def logged_names(self) -> set[str]:
        """What this module logs while it is trained; names with more parts are those of callbacks."""
        return {"train/loss", "mitigation/phase", "val/loss"}

    def _check_monitor(self, owner: str, name: Any) -> None:
        ours = ("lightning_attn.", "pytorch_lightning.", "lightning_fabric.")
        kinds = [type(part) for part in (self, *vars(self.trainer)["callbacks"])]
        if not isinstance(name, str) or not all(kind.__module__.startswith(ours) for kind in kinds):
            return  # who knows what a class of the user's logs
        known = self.logged_names()
        if name not in known and name not in ("epoch", "step") and name.count("/") < 2 and "mitigation/" not in name:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
            meant = f"did you mean {' or '.join(near)}?" if near else f"the module logs {', '.join(sorted(known))}."
            raise InputError(f"{owner} monitors {shown(name)}, which nothing logs; {meant}")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over all parameters, and the scheduler if there is one; a plateau is one of ``val/loss``."""
        parameters: Any = self.parameters()
        if self.parameter_rules:
            parameters = parameter_groups(self, self.network, self.parameter_rules)
        try:
            optimizer = self.optimizer(parameters)
        except ValueError as error:
            described = self.hparams.get("optimizer") or {}  # from the command line, its configuration
            name = described.get("class_path") or getattr(self.optimizer, "__qualname__", repr(self.optimizer))
            raise InputError(f"The optimizer {name} refuses its arguments: {error}.") from error
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("rate", 1.0)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, StepSchedule):
            scheduler.plan(self.trainer.estimated_stepping_batches)
        monitor = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else "val/loss"
        self._check_monitor(type(scheduler).__name__, monitor)
        interval = getattr(scheduler, "interval", "epoch")
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": monitor, "interval": interval},
        }

    def on_train_start(self) -> None:
        """Freeze what the mitigation wants frozen; a run resumed within an epoch has no epoch start."""
        self._apply_rates()

    def on_train_epoch_start(self) -> None:
        """Let the mitigation decide what learns in this epoch."""
        self._apply_rates()

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """One step; parts with a rate of their own go that many times as far, whatever the optimiser."""
        # Parameter groups would not do: the rates change from epoch to epoch, while the groups are part of the
        # optimiser's state in every checkpoint; and a share of the learning rate is a share of the step for some
        # optimisers only, and for none of them to the last bit.
        others = [
            (parameter, parameter.detach().clone(), rate)
            for module, rate in self._rates.items()
            if rate not in (0, 1)
            for parameter in module.parameters()
        ]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        with torch.no_grad():
            for parameter, before, rate in others:
                parameter.copy_(torch.lerp(before, parameter, rate))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what is needed to explain a raw text: schema, tokenizer, class names. Plain values only."""
        checkpoint["schema"] = self.network.schema.as_dict()
        checkpoint["data"] = self.data_state
        if "network" in self.hparams:
            completed = complete_specification(self.hparams["network"], self.network)
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "network": completed}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the layers that the checkpoint's weights go into.

        Raises:
            InputError: The checkpoint was not written by an ``AttentionClassifier``.
        """
        if "schema" not in checkpoint:
            raise InputError("The checkpoint holds no data schema: it was not written by an AttentionClassifier.")
        schema = read_schema(checkpoint["schema"])
        if not self.network.built:
            self._build(schema)
        check_same_data(self.network.schema, schema)
        check_weights(self, checkpoint["state_dict"])
        self._adopt(checkpoint["data"])
        self._knows_words = True

    def teardown(self, stage: str) -> None:
        """Leave nothing frozen: the next training, or the user's own, starts with every parameter learning."""
        self._release()

    def _adopt(self, data: dict[str, Any]) -> None:
        """Take over what describes the data; one network reads texts by one vocabulary."""
        present, new = self.data_state.get("processor"), data.get("processor")
        if present is not None and new is not None and present != new:
            raise InputError(
                "The data were split into tokens by another vocabulary than the network was trained with; call "
                "datamodule.restore(checkpoint['data']) before the Trainer sets the data up."
            )
        self.data_state = data or self.data_state

    @abstractmethod
    def make_metrics(self, schema: DataSchema) -> None:
        """Make what is measured, once the data are known."""

    def _build(self, schema: DataSchema) -> None:
        self.network.build(schema)
        self.make_metrics(schema)

    def _release(self) -> None:
        for module, rate in self._rates.items():
            if rate == 0:
                module.train().requires_grad_(True)
        self._rates = {}

    def _apply_rates(self) -> None:
        self._release()
        self._rates = self.mitigation.lr_scales(self.network, self.current_epoch)
        for module, rate in self._rates.items():
            if rate == 0:
                module.eval().requires_grad_(False)
                # A gradient left over from the last batch would let the optimiser move a frozen parameter once more.
                module.zero_grad(set_to_none=True)
