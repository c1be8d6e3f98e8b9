"""Does the network need the weights it learned, or would others do? `counterfactual`, `CounterfactualCallback`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_attn.callbacks.sampled import Split, network_of
from lightning_attn.errors import InputError
from lightning_attn.experiments import figures
from lightning_attn.experiments.base import ExperimentCallback, by_outputs, describe
from lightning_attn.experiments.record import ExperimentRecord, Summary, mean, undefined
from lightning_attn.mitigations.random_attention import RandomAttention, Shuffled, SoftmaxNormal
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.ops.divergence import total_variation
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import mix, seeded
from lightning_attn.types import AttentionOutput, Batch, DataSchema

if TYPE_CHECKING:  # it takes a second to import, and not every run draws
    from matplotlib.figure import Figure


@dataclass
class Counterfactual:
    """What other weights in place of the learned ones do to each example; every tensor has shape ``(B,)``.

    Attributes:
        change: Change of the output, a total variation distance in [0, 1]; NaN where fewer than two positions can be
            attended, so that there are no other weights.
        same_prediction: 1 where the prediction stays, 0 where it changes, NaN as ``change``. Of a multi-label example
            every label has to stay.
        correct: 1 where the prediction under the other weights is right, 0 where not. Of a multi-label example every
            label has to be right (subset accuracy).
        correct_learned: The same under the learned weights; the difference of the means is the change in accuracy.
    """

    change: Tensor
    same_prediction: Tensor
    correct: Tensor
    correct_learned: Tensor


class AttentionSource(ABC):
    """Where the other weights come from."""

    @abstractmethod
    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        """Weights to put in place of ``output.attention``, a distribution over ``batch.valid``, shape ``(B, L)``.

        Args:
            network: The network under test.
            output: What it computed for ``batch``.
            batch: B padded examples.
        """


class Uniform(AttentionSource):
    """The same weight on every position; what special tokens were given, they keep."""

    @override
    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        inner = batch.inner
        return _in_place(inner / inner.sum(dim=-1, keepdim=True).clamp(min=1), output.attention, batch)


class Random(AttentionSource):
    """Weights drawn without looking at the text; what special tokens were given, they keep.

    Args:
        seed: An example's weights depend on it and on ``Batch.index``.
        distribution: What is drawn from; None means ``SoftmaxNormal()``.

    Raises:
        InputError: The distribution is ``Shuffled()``, which takes the weights of other examples of the batch.
    """

    def __init__(self, seed: int = 0, distribution: RandomAttention | None = None) -> None:
        if isinstance(distribution, Shuffled):
            raise InputError(
                "Random draws for each example by itself, and Shuffled() takes the weights of others: use another "
                "distribution, such as SoftmaxNormal()."
            )
        self.seed = seed
        self.distribution = distribution or SoftmaxNormal()

    @override
    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        drawn = torch.zeros_like(output.attention)
        seeds = mix(mix(batch.index) + mix(mix(batch.index.new_tensor(self.seed)))).tolist()
        # The distributions draw from PyTorch's global state, so each example needs a start of its own: hence the loop.
        # On the CPU the numbers are the same wherever the network is.
        for row, (seed, inner) in enumerate(zip(seeds, batch.inner, strict=True)):
            if not inner.any():
                continue
            one = torch.ones(1, int(inner.sum()), dtype=torch.bool)
            nothing = torch.zeros(1, dtype=torch.int64)
            with seeded(seed, torch.device("cpu")):
                sample = self.distribution.sample(one.float(), Batch(one.float(), one, ~one, nothing, nothing))
            drawn[row, inner] = sample[0].to(drawn)
        return _in_place(drawn, output.attention, batch)


class Other(AttentionSource):
    """The attention of another trained network that reads the same data.

    Args:
        network: Built network; it goes to the device of the batch.
    """

    def __init__(self, network: AttentionNetwork) -> None:
        self.network = network

    def weights(self, network: AttentionNetwork, output: AttentionOutput, batch: Batch) -> Tensor:
        """See :meth:`AttentionSource.weights`.

        Raises:
            InputError: The two networks do not read the same data.
        """
        for name in ("vocabulary_size", "feature_shape", "query_vocabulary_size"):
            own, other = (getattr(one.schema, name) for one in (network, self.network))
            if own != other:
                raise InputError(
                    f"The other network's attention cannot be used: it was trained with {name} {other}, this one with "
                    f"{own}; both must be trained on the same data."
                )
        self.network.to(batch.device)
        with torch.no_grad(), evaluating(self.network):
            theirs: AttentionOutput = self.network(batch.replace(query_vector=None))
        return theirs.attention.to(output.attention)


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


def _in_place(inner: Tensor, attention: Tensor, batch: Batch) -> Tensor:
    """The attention with its mass on ``batch.inner`` dealt out as ``inner`` ``(B, L)`` says."""
    mass = attention.masked_fill(~batch.inner, 0.0).sum(dim=-1, keepdim=True)
    return attention.masked_fill(batch.inner, 0.0) + mass * inner.to(attention)


def counterfactual(
    network: AttentionNetwork, batch: Batch, source: AttentionSource, *, max_tokens: int = 16384
) -> Counterfactual:
    """Put other weights in place of the learned ones and see what happens to the output.

    Args:
        network: Built network; its values and its head stay as they are.
        batch: B examples with their targets.
        source: Where the weights come from.
        max_tokens: Positions, padding included, of the texts read at a time.

    Raises:
        InputError: ``max_tokens`` is below 1, or the source does not fit the network.

    Source: Jain and Wallace, NAACL 2019, https://arxiv.org/abs/1902.10186, section 4.2, call such weights
    counterfactual; uniform weights and another model's are Wiegreffe and Pinter's, EMNLP 2019,
    https://arxiv.org/abs/1908.04626.
    """

    def replace(output: AttentionOutput, part: Batch) -> Counterfactual:
        with evaluating(network):
            logits = network.classify(output.values, source.weights(network, output, part), part)
        schema = network.schema
        p, q = (schema.probabilities(each.float()) for each in (output.logits, logits))
        learned, other = (_predicted(each, schema) for each in (p, q))
        target = part.target if schema.multi_label else part.target[:, None]
        undefined = part.inner.sum(dim=-1) < 2
        return Counterfactual(
            change=total_variation(p, q, schema.multi_label).masked_fill(undefined, torch.nan),
            same_prediction=(learned == other).all(dim=-1).float().masked_fill(undefined, torch.nan),
            correct=(other == target).all(dim=-1).float(),
            correct_learned=(learned == target).all(dim=-1).float(),
        )

    return by_outputs(replace, network, batch, max_tokens)


def _predicted(probabilities: Tensor, schema: DataSchema) -> Tensor:
    """The predicted class, shape ``(B, 1)``; of a multi-label task one 0 or 1 per label, shape ``(B, C)``."""
    return probabilities > 0.5 if schema.multi_label else probabilities.argmax(dim=-1, keepdim=True)


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
        summary: Summary = {"accuracy": learned}
        for source in self.sources:
            accuracy = mean(self.values[f"{source}/correct"])
            change = None if accuracy is None or learned is None else accuracy - learned
            summary |= {
                f"{source}/accuracy": accuracy,
                f"{source}/accuracy_change": change,
                f"{source}/output_change": mean(self.values[f"{source}/tvd"]),
                f"{source}/same_prediction": mean(self.values[f"{source}/same_prediction"]),
            }
        return {**summary, "undefined": undefined(self.values[f"{self.sources[0]}/tvd"])}

    def figures(self) -> dict[str, Figure]:
        """``counterfactual``: accuracy and change of the output under the weights of each source."""
        summary = self.summary()
        heights = {"learned": summary["accuracy"], **{name: summary[f"{name}/accuracy"] for name in self.sources}}
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
        **settings: Of :class:`ExperimentCallback`; ``seed`` is of the sample, a source has its own.

    Raises:
        InputError: There is no source, a number is below 1, or a split unknown.
    """

    record = CounterfactualRecord

    def __init__(self, sources: list[AttentionSource] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        if sources is not None and not sources:
            raise InputError("CounterfactualCallback needs at least one source of weights, such as Uniform.")
        self.sources: dict[str, AttentionSource] = {}
        kinds: Counter[str] = Counter()
        for source in [Uniform(), Random()] if sources is None else sources:
            kind = "other" if isinstance(source, Other) else type(source).__name__.lower()
            kinds[kind] += 1
            self.sources[kind if kinds[kind] == 1 else f"{kind}_{kinds[kind]}"] = source

    @property
    @override
    def settings(self) -> dict[str, Any]:
        return {"sources": {name: describe(source) for name, source in self.sources.items()}}

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

    @override
    def measured(self, network: AttentionNetwork, batch: Batch) -> dict[str, Tensor]:
        columns: dict[str, Tensor] = {}
        for name, source in self.sources.items():
            result = counterfactual(network, batch, source, max_tokens=self.max_tokens)
            columns |= {
                "correct": result.correct_learned,
                f"{name}/tvd": result.change,
                f"{name}/same_prediction": result.same_prediction,
                f"{name}/correct": result.correct,
            }
        return columns
