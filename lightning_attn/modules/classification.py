"""The LightningModule that trains an attention classifier under a mitigation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from lightning_attn.data.base import AttentionDataModule
from lightning_attn.encoders.hub import complete_specification
from lightning_attn.losses import classification_loss
from lightning_attn.metrics.classification import classification_metrics
from lightning_attn.mitigations.base import Mitigation
from lightning_attn.modules.compatibility import check_same_data, is_plain
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import AttentionOutput, Batch, DataSchema, InputError


class AttentionClassifier(LightningModule):
    """Trains a network under a mitigation; multi-class and multi-label.

    Logs ``train/loss``, and ``loss``, ``accuracy``, ``f1`` (macro) and ``auroc`` (macro) under ``val/`` and ``test/``,
    and the mitigation's own figures under ``mitigation/``. Every logged figure is the same for any number of
    processes. ``mitigation/phase`` is 0 while the head sees random attention and 1 once it sees the learned one.
    Validation and test always use the learned attention and unweighted examples.

    Example:
        >>> from lightning_attn.networks import PooledNetwork
        >>> from lightning_attn.mitigations import RandomPretraining
        >>> module = AttentionClassifier(PooledNetwork(), mitigation=RandomPretraining(epochs=2))

    Args:
        network: What is trained; its layers are made when the data are known.
        mitigation: What keeps label information out of the attention; None means ``NoMitigation()``.
        optimizer: From parameters to an optimiser.
        lr_scheduler: From an optimiser to a scheduler that steps once an epoch; None keeps the rate.

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
    ) -> None:
        super().__init__()
        # Run from Python, the arguments are modules, which a checkpoint must not hold (it would have to be unpickled);
        # run from the command line, Lightning records their configuration in place of them.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Attribute '(network|mitigation)' is an instance of `nn.Module`")
            self.save_hyperparameters()
        for name in [name for name, value in self.hparams.items() if not is_plain(value)]:
            del self.hparams[name]
        self.network = network
        if mitigation is not None:
            network.mitigation = mitigation  # type: ignore[misc]  # AttentionNetwork.__setattr__ takes it
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.data_state: dict[str, Any] = {}
        self._rates: dict[nn.Module, float] = {}
        self._knows_words = False  # whether the word vectors were loaded, or weights that replace them
        if network.built:
            self._make_metrics(network.schema)

    @property
    def mitigation(self) -> Mitigation:
        """The mitigation that the network's attention layer owns."""
        return self.network.mitigation

    def forward(self, batch: Batch) -> AttentionOutput:
        """The network's output for a batch."""
        output: AttentionOutput = self.network(batch)
        return output

    def goal(self, batch: Batch) -> Tensor:
        """What the network is to predict: the labels, shape ``(B,)`` or ``(B, C)``. See :meth:`loss`."""
        return batch.target

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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over all parameters, and the scheduler if there is one; a plateau is one of ``val/loss``."""
        try:
            optimizer = self.optimizer(self.parameters())
        except ValueError as error:
            described = self.hparams.get("optimizer") or {}  # from the command line, its configuration
            name = described.get("class_path") or getattr(self.optimizer, "__qualname__", repr(self.optimizer))
            raise InputError(f"The optimizer {name} refuses its arguments: {error}.") from error
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        monitor = scheduler.monitor if isinstance(scheduler, ReduceLROnPlateau) else "val/loss"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}

    def on_train_start(self) -> None:
        """Freeze what the mitigation wants frozen; a run resumed within an epoch has no epoch start."""
        self._apply_rates()

    def on_train_epoch_start(self) -> None:
        """Let the mitigation decide what learns in this epoch."""
        self._apply_rates()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mitigated loss of a batch."""
        mitigation = self.mitigation
        batch = mitigation.perturb(batch.replace(target=self.goal(batch)))
        output = self(batch)
        seen = self.network.attended(batch)
        weights = mitigation.weigh(output.learned, seen)
        loss = self.loss(output.logits, batch.target, weights)
        self.train_loss.update(loss.detach(), len(batch))
        auxiliary = mitigation.auxiliary_loss(output, seen, self.network)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        phase = float(mitigation.phase == "learn")
        self.log("mitigation/phase", phase, on_step=False, on_epoch=True, batch_size=len(batch), sync_dist=True)
        for name, metric in mitigation.metrics().items():
            if metric.update_called:  # what rests in this phase has nothing to log
                self.log(f"mitigation/{name}", metric, on_step=False, on_epoch=True)
        return loss if auxiliary is None else loss + auxiliary

    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean cross-entropy, a scalar.

        Args:
            logits: Shape ``(B, C)``.
            target: See :meth:`goal`.
            weights: What :meth:`Mitigation.weigh` gives; None weighs all alike.
        """
        return classification_loss(logits, target, self.network.schema, weights)

    def on_validation_epoch_start(self) -> None:
        """Let every process take part in the metrics, also one that has no example."""
        self._join_without_examples(self.val_metrics)

    def on_test_epoch_start(self) -> None:
        """As for validation."""
        self._join_without_examples(self.test_metrics)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics; a process that has run out of examples gets empty batches."""
        if len(batch):
            self._update_metrics(self.val_metrics, self(batch).logits, batch.target, self.goal(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the metrics; a process that has run out of examples gets empty batches."""
        if len(batch):
            self._update_metrics(self.test_metrics, self(batch).logits, batch.target, self.goal(batch))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/*``."""
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log ``test/*``."""
        self._log_metrics("test", self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Row, probabilities ``(B, C)`` and attention ``(B, L)`` of each example; None for an empty batch."""
        if not len(batch):
            return None
        output = self(batch)
        return {
            "index": batch.index,
            "probabilities": self.network.schema.probabilities(output.logits),
            "attention": output.attention,
            "inputs": batch.inputs,
            "valid": batch.valid,
        }

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """One step; parts with a rate of their own go that many times as far, whatever the optimiser."""
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
        schema = DataSchema(**checkpoint["schema"])
        if not self.network.built:
            self._build(schema)
        check_same_data(self.network.schema, schema)
        self._adopt(checkpoint["data"])
        self._knows_words = True

    def teardown(self, stage: str) -> None:
        """Leave nothing frozen: the next training, or the user's own, starts with every parameter learning."""
        self._release()

    def _adopt(self, data: dict[str, Any]) -> None:
        """Take over what describes the data; one network reads texts by one vocabulary."""
        known, given = self.data_state.get("processor"), data.get("processor")
        if known is not None and given is not None and known != given:
            raise InputError(
                "The data were split into tokens by another vocabulary than the network was trained with; call "
                "datamodule.restore(checkpoint['data']) before the Trainer sets the data up."
            )
        self.data_state = data or self.data_state

    def _build(self, schema: DataSchema) -> None:
        self.network.build(schema)
        self._make_metrics(schema)

    def _make_metrics(self, schema: DataSchema) -> None:
        self.train_loss = MeanMetric()
        self.val_metrics = classification_metrics(schema)
        self.test_metrics = classification_metrics(schema)

    def _release(self) -> None:
        for module, rate in self._rates.items():
            if rate == 0:
                module.train().requires_grad_(True)
        self._rates = {}

    def _apply_rates(self) -> None:
        self._release()
        self._rates = self.mitigation.trainable(self.network, self.current_epoch)
        for module, rate in self._rates.items():
            if rate == 0:
                module.eval().requires_grad_(False)
                # A gradient left over from the last batch would let the optimiser move a frozen parameter once more.
                module.zero_grad(set_to_none=True)

    def _update_metrics(self, metrics: MetricCollection, logits: Tensor, target: Tensor, goal: Tensor) -> None:
        probabilities = self.network.schema.probabilities(logits)
        metrics["loss"].update(self.loss(logits, goal), len(goal))
        for name in ("accuracy", "f1", "auroc"):
            metrics[name].update(probabilities, target.long())

    def _join_without_examples(self, metrics: MetricCollection) -> None:
        """Bring list states of the right type on every process: one that gets no example has none of its own."""
        classes = self.network.schema.num_classes
        target = torch.zeros((0, classes) if self.network.schema.multi_label else 0, device=self.device).long()
        metrics["auroc"].update(torch.zeros(0, classes, device=self.device), target)

    def _log_metrics(self, stage: str, metrics: MetricCollection) -> None:
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            self.log(f"{stage}/{name}", metric, prog_bar=name in ("loss", "accuracy"))
