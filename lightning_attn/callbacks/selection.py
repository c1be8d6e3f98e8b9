"""What a selection explains, measured every epoch: `SelectionCallback`."""

from __future__ import annotations

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lightning_attn.callbacks.sampled import SampledCallback, Split, gathered, network_of, training_batches
from lightning_attn.errors import InputError
from lightning_attn.metrics.fresh_reader import Part, reader_agreement, train_reader
from lightning_attn.metrics.selection import mask_rows, selection_figures, selection_rows
from lightning_attn.metrics.shortcut import Rows, distinct_rows
from lightning_attn.perturbation.perturbations import Perturbation
from lightning_attn.tasks.black_box import BlackBoxExplainer
from lightning_attn.types import Batch

#: What a fresh reader of each figure sees.
FRESH: dict[str, Part] = {"fs_accuracy": "selection", "fu_accuracy": "rest"}


class SelectionCallback(SampledCallback):
    """Measures on a sample whether a selection explains a black box, or passes its answer on.

    For a :class:`BlackBoxExplainer`. Logs under ``val/selection/``, or ``test/selection/``:

    - ``fidelity``: how often the network, which sees the selection, says what the black box says of the whole input;
    - ``post_hoc_accuracy``: how often the black box itself says it of the selected part alone; ``post_hoc_rest``: of
      the rest; ``random_accuracy``: of random selections of the same size, the floor. Where fidelity is high and
      post-hoc accuracy is near the floor, the answer travels in the selection and nothing is explained;
    - ``mask_only_accuracy``, ``mask_only_bits``: what a regression reads of the black box's answer off the selection
      alone, held out; ``_train``, of training examples;
    - ``precision``, ``auroc``: of selection and scores against evidence, where there is any; and ``selected_share``;
    - ``fs_accuracy``, ``fu_accuracy``, if ``fresh_epochs`` is given: how often a reader that learned afresh, from the
      selections of training examples alone or from what they left out, says what the black box says of the whole.

    What does not apply is left out, and why is said once. Any number of processes gives the same figures.

    Source: post-hoc accuracy as in Chen et al., ICML 2018, https://arxiv.org/abs/1802.07814; of the rest, Liang et al.,
    KDD 2020, as are the fresh readers.

    Args:
        every_n_epochs: Validation epochs from one measurement to the next; validate and test always measure.
        max_examples: Size of the sample; None takes every example.
        train_examples: Training examples whose masks are probed as well, and of which fresh readers learn; 0 leaves
            them out.
        perturbation: What happens to what the black box is not shown; None means ``Delete()``: words close up, patches
            are blank.
        draws: Random selections per example, at least 1.
        max_tokens: Positions, padding included, that one forward pass of the black box may have.
        seed: Of the sample, the random selections, the folds of the probe and the fresh readers.
        fresh_epochs: Epochs of two fresh readers at every measurement, each nearly as dear as so many epochs of
            training on ``train_examples``; 0 trains none. They are trained during ``fit``.

    Raises:
        InputError: A number is out of its range.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        max_examples: int | None = 1000,
        train_examples: int = 1000,
        perturbation: Perturbation | None = None,
        draws: int = 3,
        max_tokens: int = 16384,
        seed: int = 0,
        fresh_epochs: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, seed)
        self._at_least_one(draws=draws, max_tokens=max_tokens)
        for name, value in (("train_examples", train_examples), ("fresh_epochs", fresh_epochs)):
            if value < 0:
                raise InputError(f"SelectionCallback needs {name} of at least 0, not {value}.")
        if fresh_epochs and not train_examples:
            raise InputError("Fresh readers learn from training examples: give SelectionCallback some train_examples.")
        self.train_examples = train_examples
        self.perturbation = perturbation
        self.draws = draws
        self.max_tokens = max_tokens
        self.fresh_epochs = fresh_epochs
        self._reasons: set[str] = set()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is a selection and a black box.

        Raises:
            InputError: There is none, or the Trainer has two of these callbacks.
        """
        super().setup(trainer, pl_module, stage)
        if not isinstance(pl_module, BlackBoxExplainer):
            raise InputError(
                f"SelectionCallback compares a selection with a black box, and {type(pl_module).__name__} explains "
                "none: use BlackBoxExplainer (configs/selection/), or ShortcutProbe to probe a classifier."
            )

    @override
    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        assert isinstance(pl_module, BlackBoxExplainer)
        network, black_box = network_of(pl_module), pl_module.explained.to(pl_module.device)
        options = (self.perturbation, self.draws, self.seed, self.max_tokens)
        training, readers = None, {}
        if self.train_examples and trainer.state.fn == TrainerFn.FITTING:
            # The same on every process: what is measured once need not be gathered.
            examples = training_batches(trainer, network, self.train_examples, self.seed)
            masks = [_arrays(mask_rows(network, black_box, batch)) for batch in examples]
            training = distinct_rows(masks) if masks else None
            if self.fresh_epochs and examples:
                readers = {
                    name: train_reader(network, black_box, examples, part, self.fresh_epochs, seed=self.seed)
                    for name, part in FRESH.items()
                }
        rows = []
        for batch in batches:
            measured = selection_rows(network, black_box, batch, *options)
            for name, reader in readers.items():
                measured[name] = reader_agreement(reader, network, black_box, batch, FRESH[name])
            rows.append(_arrays(measured))
        parts = gathered(trainer, rows)
        if not parts:
            return
        figures, reasons = selection_figures(distinct_rows(parts), training, self.seed)
        for name, reason in reasons.items():
            if name not in self._reasons:
                rank_zero_info(f"selection/{name} is not logged: {reason}")
            self._reasons.add(name)
        for name, value in figures.items():
            figure = torch.tensor(value, device=pl_module.device, dtype=torch.float32)
            pl_module.log(f"{split}/selection/{name}", figure, sync_dist=True, reduce_fx="max", batch_size=1)


def _arrays(rows: dict[str, Tensor]) -> Rows:
    return {name: column.double().cpu().numpy() for name, column in rows.items()}
