"""Does the network need the weights it learned, or would others do? `CounterfactualCallback`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lightning_attn.callbacks.sampled import Split
from lightning_attn.callbacks.timing import network_of
from lightning_attn.errors import InputError
from lightning_attn.experiments import figures
from lightning_attn.experiments.base import ExperimentCallback, described
from lightning_attn.experiments.counterfactual import AttentionSource, Other, Random, Uniform, counterfactual
from lightning_attn.experiments.record import ExperimentRecord, Summary, mean, undefined
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.types import Batch

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure


class OtherCheckpoint(Other):
    """The attention of another trained network, out of its checkpoint.

    Args:
        checkpoint: A checkpoint that ``lightning fit`` wrote on the same data.

    Raises:
        InputError: The checkpoint cannot be read, or does not describe its network.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self._trained = TrainedNetwork.read(checkpoint)
        super().__init__(self._trained.network)

    def check(self, module: LightningModule) -> None:
        """Compare what both networks were trained on.

        Raises:
            InputError: They have other classes or another vocabulary.
        """
        theirs = self.network.schema.as_dict()
        for name, ours in network_of(module).schema.as_dict().items():
            if ours != theirs[name]:
                raise InputError(
                    f"The attention of {self.checkpoint} cannot be used here: it was trained on data with "
                    f"{name.replace('_', ' ')} {theirs[name]}, this model on data with {ours}."
                )
        processor = getattr(module, "data_state", {}).get("processor")
        if processor is not None and processor != self._trained.data.get("processor"):
            raise InputError(
                f"The attention of {self.checkpoint} cannot be used here: it was trained with another vocabulary, by "
                "which the token ids mean other words."
            )


class CounterfactualRecord(ExperimentRecord):
    """What other weights in place of the learned ones do to each example, and to all."""

    name = "counterfactual"
    title = "Other weights in place of the learned ones"
    headlines: ClassVar[tuple[str, ...]] = ()

    @property
    def sources(self) -> list[str]:
        """Names of the sources, in their order."""
        return [name.removesuffix("/tvd") for name in self.values if name.endswith("/tvd")]

    def summary(self) -> Summary:
        """Accuracy under the learned weights, and for each source accuracy, its change, and the output's change.

        Of multi-label examples the accuracy is that of whole label sets.
        """
        learned = mean(self.values["correct"])
        found: Summary = {"accuracy": learned}
        for source in self.sources:
            accuracy = mean(self.values[f"{source}/correct"])
            change = None if accuracy is None or learned is None else accuracy - learned
            found |= {
                f"{source}/accuracy": accuracy,
                f"{source}/accuracy_change": change,
                f"{source}/output_change": mean(self.values[f"{source}/tvd"]),
                f"{source}/same_prediction": mean(self.values[f"{source}/same_prediction"]),
            }
        return {**found, "undefined": undefined(self.values[f"{self.sources[0]}/tvd"])}

    def figures(self) -> dict[str, Figure]:
        """``counterfactual``: accuracy and change of the output under the weights of each source."""
        found = self.summary()
        heights = {"learned": found["accuracy"], **{name: found[f"{name}/accuracy"] for name in self.sources}}
        with figures.canvas(self, 2, width=5.6) as (figure, (left, right)):
            figures.bars(left, heights, "accuracy", "learned")
            left.set_title("Accuracy under these weights")
            names = {name: f"{name}/tvd" for name in self.sources}
            figures.by_source(right, self, names, "change of the output (TVD)", 1.0)
            right.set_title("Change of the output against the learned weights")
            figures.legend(figure, self, "median")
        return {self.name: figure}


class CounterfactualCallback(ExperimentCallback[CounterfactualRecord]):
    """Puts other weights in place of the learned ones: uniform, random, those of another trained network.

    Logs, under ``test/explanation/counterfactual/``, ``accuracy`` with the learned weights and, for each source,
    ``SOURCE/accuracy``, ``SOURCE/accuracy_change``, ``SOURCE/output_change`` (mean total variation distance) and
    ``SOURCE/same_prediction`` (share of examples); and ``undefined``, examples with fewer than two positions, which
    have no other weights. Sources are named ``uniform``, ``random``, ``other``; a second one of a kind ``other_2``.

    To train a network under the weights of another one instead, see :class:`FrozenAttention`.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2; uniform weights and another
    model's are Wiegreffe and Pinter's, EMNLP 2019, https://arxiv.org/abs/1908.04626.

    Args:
        sources: Where the other weights come from; None means ``[Uniform(), Random()]``. ``OtherCheckpoint`` takes
            those of another trained model.
        every_n_epochs: See :class:`ExperimentCallback`.
        max_examples: See :class:`ExperimentCallback`.
        splits: See :class:`ExperimentCallback`.
        max_tokens: See :class:`ExperimentCallback`.
        seed: Of the sample; a source has its own.

    Raises:
        InputError: There is no source, a number is below 1, or a split unknown.
    """

    record = CounterfactualRecord

    def __init__(
        self,
        sources: list[AttentionSource] | None = None,
        every_n_epochs: int = 1,
        max_examples: int | None = 512,
        splits: Sequence[Split] = ("test",),
        max_tokens: int = 16384,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, splits, max_tokens, seed)
        if sources is not None and not sources:
            raise InputError("CounterfactualCallback needs at least one source of weights, such as Uniform.")
        self.sources: dict[str, AttentionSource] = {}
        kinds: Counter[str] = Counter()
        for source in [Uniform(), Random()] if sources is None else sources:
            kind = "other" if isinstance(source, Other) else type(source).__name__.lower()
            kinds[kind] += 1
            self.sources[kind if kinds[kind] == 1 else f"{kind}_{kinds[kind]}"] = source

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`ExperimentRecord`."""
        return {"sources": {name: described(source) for name, source in self.sources.items()}}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that other networks fit, before anything is measured.

        Raises:
            InputError: One was trained on other data.
        """
        self._check(pl_module, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for validation."""
        self._check(pl_module, "test")

    def _check(self, pl_module: LightningModule, split: Split) -> None:
        for source in self.sources.values():
            if split in self.splits and isinstance(source, OtherCheckpoint):
                source.check(pl_module)

    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`ExperimentCallback.measured`."""
        columns: dict[str, Tensor] = {}
        for name, source in self.sources.items():
            found = counterfactual(network, batch, source, max_tokens=self.max_tokens)
            columns |= {
                "correct": found.correct_learned,
                f"{name}/tvd": found.change,
                f"{name}/same_prediction": found.same_prediction,
                f"{name}/correct": found.correct,
            }
        return columns
