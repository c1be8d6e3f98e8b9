"""Does attention find the key instances of bags, each epoch: `InstanceCallback`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_attn import attribution
from lightning_attn.attribution import Attribution, GradientXInput, Occlusion
from lightning_attn.callbacks.faithfulness import ExampleSum
from lightning_attn.callbacks.sampled import SPLITS, SampledCallback, Split, network_of
from lightning_attn.errors import InputError
from lightning_attn.metrics import ExampleMean
from lightning_attn.metrics.functional import INSTANCE_MEASURES, instance_measures, ranked_measures
from lightning_attn.metrics.functional.instances import RANKED_MEASURES
from lightning_attn.metrics.functional.plausibility import evidence_of
from lightning_attn.metrics.instances import (
    PooledAUROC,
    PooledAveragePrecision,
    PooledInstances,
    class_log_weights,
    instance_aopc_r,
)
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import Batch

#: Rankings beside that of the attention, by the name of their attribution method.
CONTROLS = ("uniform", "random", "untrained", "gradient_x_input", "occlusion")


class InstanceCallback(SampledCallback):
    """Measures on every bag of the validation or test set whether attention finds its key instances, and logs it.

    Logs ``val/instances/*`` (``test/...`` in ``trainer.test``): ``auroc``, ``average_precision`` with the ``key_rate``
    that a random ranking gets, ``ndcg``, ``precision``, ``key_mass``, ``effective_instances`` and ``covered``, each a
    mean over bags; ``skipped``, the bags where they are undefined, because none or all of the instances are key; and
    ``pooled_auroc`` and ``pooled_average_precision`` over the instances of all bags. Definitions:
    :mod:`lightning_attn.metrics.functional.instances`. Attention is ranked by the scores before softmax. A network with
    one attention a class is measured by that of the bag's label, which the key instances belong to. Data without
    evidence are not measured.

    In test, a sample of the bags shows what the figures are worth: ``test/instances/aopc_r``, what removing the
    best-ranked instances does beyond removing any, and the rankings of ``controls`` under
    ``test/instances_controls/CONTROL/``, that of the attention itself on the same bags among them.

    Fit, validate and test give the same figures, on any number of processes. Training is the same to the last bit with
    and without the callback. Of several loaders the first is measured.

    Example:
        >>> callback = InstanceCallback(controls=["random", "gradient_x_input"])

    Args:
        every_n_epochs: Validation epochs from one measurement to the next; validate and test always measure.
        splits: Where to measure.
        controls: Names of attribution methods; ``occlusion`` removes one instance at a time. It and
            ``gradient_x_input`` are signed and explain the bag's label. Empty for none.
        max_examples: Bags in the sample for controls and AOPC-R, at least 1; None takes all.
        orders: Random orders that AOPC-R compares with; 0 leaves it out.
        max_tokens: Instances, padding included, that changed bags may have in one forward pass.
        seed: Of the sample and of what is random in the controls.

    Raises:
        InputError: A name is unknown or a number too small.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        splits: Sequence[Split] = SPLITS,
        controls: Sequence[str] = CONTROLS,
        max_examples: int | None = 256,
        orders: int = 10,
        max_tokens: int = 16384,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, seed, splits)
        self._at_least_one(max_tokens=max_tokens)
        if orders < 0:
            raise InputError(f"InstanceCallback needs orders of at least 0, not {orders}.")
        self.orders = orders
        self.max_tokens = max_tokens
        self._controls = {name: self._control(name) for name in controls}
        self._means = {f"instances/{name}": ExampleMean() for name in INSTANCE_MEASURES}
        self._pooled: dict[str, PooledInstances] = {
            "instances/pooled_auroc": PooledAUROC(),
            "instances/pooled_average_precision": PooledAveragePrecision(),
        }
        self._skipped = ExampleSum()
        self._sampled = {
            f"instances_controls/{control}/{name}": ExampleMean()
            for control in (("attention", *controls) if controls else ())
            for name in RANKED_MEASURES
        }
        if orders:
            self._sampled["instances/aopc_r"] = ExampleMean()
        self._told = False

    def _control(self, name: str) -> Attribution:
        if name == "gradient_x_input":  # with the attention fixed its weights would be a factor of the score
            return GradientXInput(attention_fixed=False)
        if name == "occlusion":
            return Occlusion(signed=True, max_tokens=self.max_tokens)
        return attribution.get(name, **({"seed": self.seed} if name in ("random", "untrained") else {}))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hang the metrics into the module, which moves them to its device.

        Raises:
            InputError: The Trainer has two of these callbacks, or the module has no attention network.
        """
        super().setup(trainer, pl_module, stage)
        pl_module.instances = nn.ModuleDict(self._metrics())

    def _metrics(self) -> dict[str, Metric]:
        return {**self._means, **self._pooled, **self._sampled, "instances/skipped": self._skipped}

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch, and let every process take part in the metrics, also one that has no bag."""
        super().start(trainer, pl_module)
        nothing = torch.zeros(0, 1, device=pl_module.device)
        row = torch.zeros(0, dtype=torch.int64, device=pl_module.device)
        with torch.inference_mode(False):  # it is added to in place, outside of inference mode
            self._defined = torch.zeros(len(self._sampled) + 1, device=pl_module.device)
        for metric in self._metrics().values():
            metric.reset()
            if isinstance(metric, PooledInstances):
                metric.update(nothing, Batch(nothing, nothing.bool(), nothing.bool(), row, row, evidence=nothing))
            else:
                metric.update(nothing[:, 0], row)

    def keep(self, split: Split, pl_module: LightningModule, batch: Batch) -> None:
        """Measure the batch; in test, keep its bags for the sample."""
        self._update(network_of(pl_module), batch)
        if split == "test" and self._sampled and batch.evidence is not None:
            self._sample.add(batch)

    def _update(self, network: AttentionNetwork, batch: Batch) -> None:
        """Measure a batch; a process that has run out of bags gets empty ones."""
        if not len(batch) or batch.evidence is None:
            return
        with torch.inference_mode(False), torch.no_grad(), evaluating(network):
            batch = batch.apply(torch.clone)
            logs = class_log_weights(network, network(batch), batch, batch.target)
            found = instance_measures(logs, evidence_of(batch), batch.inner)
            for name, metric in self._means.items():
                metric.update(found[name.removeprefix("instances/")], batch.index)
            for pooled in self._pooled.values():
                pooled.update(logs, batch)
            undefined = found["auroc"].isnan()
            self._skipped.update(undefined, batch.index)
            self._defined[0] += (~undefined).sum()

    def _update_sampled(self, network: AttentionNetwork, batch: Batch) -> None:
        """Measure what is measured on the sample."""
        target = None if network.schema.multi_label else batch.target
        with torch.inference_mode(False), torch.no_grad(), evaluating(network):
            values: dict[str, Tensor] = {}
            if self._controls:
                scores = {name: control.attribute(network, batch, target) for name, control in self._controls.items()}
                scores["attention"] = class_log_weights(network, network(batch), batch, batch.target)
                for control, score in scores.items():
                    for name, value in ranked_measures(score, evidence_of(batch), batch.inner).items():
                        values[f"instances_controls/{control}/{name}"] = value
            if self.orders:
                values["instances/aopc_r"] = instance_aopc_r(network, batch, self.orders, self.seed, self.max_tokens)
            for place, (name, metric) in enumerate(self._sampled.items(), start=1):
                metric.update(values[name], batch.index)
                self._defined[place] += (~values[name].isnan()).sum()

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Measure the sample, which is empty but in test, and log ``SPLIT/*``."""
        for batch in batches:
            self._update_sampled(network_of(pl_module), batch)
        # All processes must agree on what to log, because logging a metric gathers its states.
        bags, *sampled = trainer.strategy.reduce(self._defined, reduce_op="sum").tolist()
        metrics: dict[str, Metric] = {
            name: metric for (name, metric), count in zip(self._sampled.items(), sampled, strict=True) if count
        }
        if bags:
            metrics |= {**self._means, **self._pooled, "instances/skipped": self._skipped}
        elif not self._told:
            rank_zero_info(
                f"{split}/instances/* is not logged: there is no bag of which some instances are known to be key and "
                "others not to be."
            )
            self._told = True
        for name, metric in metrics.items():
            pl_module.log(f"{split}/{name}", metric, metric_attribute=f"instances.{name}")
