"""What label information travels in the attention, probed every epoch: `ShortcutProbe`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning import LightningModule, Trainer

from lightning_attn.callbacks.sampled import SampledCallback, Split, gathered, network_of, training_batches
from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.evaluators import Learnt, MaskJudge, Training
from lightning_attn.metrics.shortcut import JUDGED, PROBES, Probes, Rows, distinct_rows, figures, probe_rows
from lightning_attn.mitigations.random_attention import RandomAttention
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.compatibility import check_black_box
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.text import visible
from lightning_attn.tasks import AttentionClassifier, BlackBoxExplainer
from lightning_attn.types import Batch


class ShortcutProbe(SampledCallback):
    """Measures on a sample of the validation or test set what the attention tells beside what it points at.

    Logs under ``val/shortcut/``, or ``test/shortcut/``:

    - ``leaked_bits``: what a cross-fitted probe reads of the label from the attention alone, with its 95 % interval
      (``_low``, ``_high``), ``order_free_bits`` without places, ``length_bits`` from the length alone,
      ``mask_only_accuracy`` and ``fano_bits``;
    - ``head_bits``: what the network's own head gets out of it, where it sees nothing else (``ContentFreeNetwork``);
    - ``evalx_accuracy``: of an evaluator that was trained under random masks and is shown the learned ones, beside
      ``evalx_random_accuracy`` under random ones;
    - ``encoding_bits``: what knowing the learned masks adds to that, with its interval, beside
      ``encoding_bits_control``, the same for masks of other examples, and ``encoding_bits_content``, for masks in which
      each position's own content decides: neither can encode anything. Where the latter is above 0.1 the evaluator does
      not know what the attended content says, and ``encoding_bits`` is undefined; below, its interval reaches down by
      as much;
    - ``post_hoc_accuracy`` and ``post_hoc_unselected``: how often the black box, shown the selected part alone or the
      rest alone, predicts what it does of the whole;
    - ``default_mass``: attention on default tokens, over all examples and for each class, where texts have some.

    What does not apply is left out. Evaluators are trained from scratch on training examples of the data module, before
    they are first needed; they never see validation examples. Training is the same to the last bit with and without
    the callback. A ``FaithfulnessCallback`` beside it leaves ``shortcut/`` to it.

    Args:
        every_n_epochs: Validation epochs from one measurement to the next; validate and test always measure.
        max_examples: Size of the sample, at least 1, drawn at random once; None takes every example.
        metrics: Which of the probes above, by their first names; None means all.
        train_examples: Training examples that evaluators learn from, at least 1.
        distribution: Random attention for EVAL-X; None means what is nearest to the network's own.
        black_box: Checkpoint of the network whose prediction the selection must preserve; None means the one that a
            :class:`BlackBoxExplainer` explains, else the network itself.
        share: Part of the positions that counts as selected, in (0, 1], where the attention is soft.
        max_tokens: Positions, padding included, that texts may have in one forward pass of the black box.
        training: How evaluators learn, but for its seed; None means ``Training()``. Pictures take more than texts:
            where ``evalx_random_accuracy`` is at chance, they have not learned enough to judge anything.
        seed: Of the sample, the evaluators, the folds and the bootstrap.

    Attributes:
        rows: What the last measurement saw of each example, by name, in the order of ``index``; see :func:`probe_rows`.
            And ``leaked``, the bits that the probe of ``leaked_bits`` gained on each.

    Raises:
        InputError: A name is unknown or a number out of its range.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_examples: int | None = 1000,
        metrics: Sequence[str] | None = None,
        train_examples: int = 2000,
        distribution: RandomAttention | None = None,
        black_box: str | None = None,
        share: float = 0.2,
        max_tokens: int = 16384,
        training: Training | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, seed)
        self._at_least_one(train_examples=train_examples, max_tokens=max_tokens)
        if not 0 < share <= 1:
            raise InputError(f"ShortcutProbe needs a share in (0, 1], not {share}.")
        names = PROBES if metrics is None else tuple(metrics)
        self._known("metric", names, PROBES)
        self.train_examples = train_examples
        self.distribution = distribution
        self.black_box = black_box
        self.rows: Rows = {}
        self.training = replace(training or Training(), seed=seed)
        self.probes = Probes(names, share, max_tokens=max_tokens)
        self._trained: TrainedNetwork | None = None
        self._judge: MaskJudge | None = None
        self._judged: tuple[object, object] = (None, None)
        self._told: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the black box.

        Raises:
            InputError: The Trainer has two of these callbacks, the module has no attention network, or the black box
                cannot be read.
        """
        super().setup(trainer, pl_module, stage)
        network = network_of(pl_module)
        judged = (getattr(trainer, "datamodule", None), network)
        if any(known is not given for known, given in zip(self._judged, judged, strict=True)):
            self._judge = None  # its evaluators are for other data or masks of another kind
        self._judged = judged
        if self.black_box is not None and self._trained is None:
            self._trained = TrainedNetwork.read(self.black_box)

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the examples of the last epoch; see that the black box fits, now that the network has its layers.

        Raises:
            InputError: It does not, or it holds NaN.
        """
        super().start(trainer, pl_module)
        black_box = pl_module.explained if isinstance(pl_module, BlackBoxExplainer) else None
        if self.black_box is not None and self._trained is not None:
            black_box = self._trained.network
            if self.probes.black_box is not black_box:
                data = pl_module.data_state if isinstance(pl_module, AttentionClassifier) else {}
                check_black_box(self.black_box, self._trained, network_of(pl_module).schema, data)
        self.probes = replace(self.probes, black_box=black_box)

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Probe and log ``SPLIT/shortcut/*``."""
        network = network_of(pl_module)
        if network.schema.multi_label:
            self._tell("*", "Examples may have several labels, and the probes are for one.")
            return
        if self.probes.black_box is not None:
            self.probes.black_box.to(pl_module.device)
        # Lightning validates in inference mode, whose tensors cannot be used in training evaluators.
        with torch.inference_mode(False):
            learnt = self._learn(trainer, network)
            parts: list[Rows] = []
            for batch in batches:
                rows = probe_rows(network, batch, self.probes, self._judge if learnt else None, learnt)
                parts.append({name: values.double().cpu().numpy() for name, values in rows.items()})
        self.rows = distinct_rows(gathered(trainer, parts))
        found, reasons = figures(self.rows, network.schema.class_names, self.seed)
        for name, reason in reasons.items():
            self._tell(name, reason)
        for name, value in found.items():
            # Every process has the same figure.
            figure = torch.tensor(value, device=pl_module.device, dtype=torch.float32)
            pl_module.log(f"{split}/shortcut/{visible(name)}", figure, sync_dist=True, reduce_fx="max", batch_size=1)

    def _learn(self, trainer: Trainer, network: AttentionNetwork) -> Learnt | None:
        """Evaluators for the network as it is now; None if they are not asked for or there is nothing to learn from."""
        if not any(name in JUDGED for name in self.probes.names):
            return None
        if self._judge is None:
            batches = training_batches(trainer, network, self.train_examples, self.seed)
            if not batches:
                reason = "Evaluators learn from the training split of a data module of this package."
                self._tell(", ".join(JUDGED), reason)
                return None
            distribution = self.distribution or network.random_counterpart
            self._judge = MaskJudge(network.schema, batches, distribution, self.training)
        with torch.no_grad(), evaluating(network):
            masks = [network(network.read_query(batch)).attention for batch in self._judge.batches]
        return self._judge.learn(masks)

    def _tell(self, name: str, reason: str) -> None:
        """Say once why something is not logged."""
        if name not in self._told:
            rank_zero_info(f"shortcut/{name} is not logged: {reason}")
        self._told.add(name)
