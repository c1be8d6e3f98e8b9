"""Means over distinct examples, the same on any number of processes: the base of the metrics here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_attn.metrics.functional.plausibility import f1
from lightning_attn.types import Batch


class PerExampleMean(Metric):
    """Mean of one value per example; an example that arrives twice, on whatever process, counts once.

    A subclass writes ``update`` and calls :meth:`add`. NaN means that the value is undefined for an example: it is
    skipped and counted.

    Attributes:
        count: Examples in the mean, set by ``compute``.
        skipped: Examples whose value is undefined, set by ``compute``.
    """

    is_differentiable = False
    full_state_update = False
    #: Numbers stored per example.
    columns = 1

    value: list[Tensor] | Tensor
    index: list[Tensor] | Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = 0
        self.skipped = 0
        self.add_state("value", [], dist_reduce_fx="cat")
        self.add_state("index", [], dist_reduce_fx="cat")
        self._seed()

    def _seed(self) -> None:
        """Put an empty tensor into each state: a process without examples must gather the right shape and dtype."""
        self.value = [torch.empty(0, self.columns, device=self.device)]
        self.index = [torch.empty(0, dtype=torch.int64, device=self.device)]

    def reset(self) -> None:
        """Forget all examples."""
        # The base class clears lists in place; after a synchronised compute they may still be tensors.
        self.value, self.index = [], []
        super().reset()
        self._seed()

    def add(self, value: Tensor, index: Tensor) -> None:
        """Remember a batch.

        Args:
            value: Shape ``(B,)``, or ``(B, columns)``.
            index: Rows of the data set, shape ``(B,)``, int64.
        """
        assert isinstance(self.value, list)
        assert isinstance(self.index, list)
        self.value.append(value.detach().reshape(-1, self.columns).to(self.device, torch.float32))
        self.index.append(index.detach().to(self.device))

    def rows(self) -> tuple[Tensor, Tensor]:
        """Every distinct example once, in the order of its index: values ``(N, columns)`` float64, indices ``(N,)``.

        On the CPU: not every accelerator has float64.
        """
        values, indices = dim_zero_cat(self.value).cpu().double(), dim_zero_cat(self.index).cpu()
        order = indices.argsort(stable=True)
        values, indices = values[order], indices[order]
        new = torch.ones_like(indices, dtype=torch.bool)
        new[1:] = indices[1:] != indices[:-1]
        return values[new], indices[new]

    def means(self) -> Tensor:
        """Mean of every column over the examples where no column is NaN, shape ``(columns,)``; sets the counts."""
        values, _ = self.rows()
        defined = ~values.isnan().any(dim=-1)
        self.count, self.skipped = int(defined.sum()), int((~defined).sum())
        return values[defined].mean(dim=0)

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN if no example has a value."""
        return self.means()[0].to(self.device, torch.float32)


class ExampleMean(PerExampleMean):
    """Mean of values over distinct examples: of any function that gives one per example, or of values computed before.

    Example:
        >>> from lightning_attn.metrics.functional import comprehensiveness
        >>> metric = ExampleMean(comprehensiveness)
        >>> metric.update(torch.tensor([0.9, 0.8]), torch.tensor([[0.5], [0.7]]), torch.tensor([0, 1]))
        >>> round(float(metric.compute()), 2)
        0.25

    Args:
        function: From the arguments of :meth:`update` to values of shape ``(B,)``, such as those of
            :mod:`lightning_attn.metrics.functional`, with :func:`functools.partial` for their options. None averages
            the values themselves.
        **kwargs: See ``torchmetrics.Metric``.
    """

    def __init__(self, function: Callable[..., Tensor] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def update(self, *arguments: Any) -> None:
        """Add a batch.

        Args:
            arguments: Those of the function, or values of shape ``(B,)``, NaN where undefined; then the rows of the
                data set, shape ``(B,)``, int64, of which a repeated one counts once. A :class:`Batch` in their place
                stands for its index, and goes to the function too.
        """
        *values, rows = arguments
        if isinstance(rows, Batch):
            values, rows = list(arguments), rows.index
        self.add(values[0] if self.function is None else self.function(*values), rows)


class ChunkMean(ExampleMean):
    """Mean of the means of consecutive parts of the data set, as the code of Mask-LRP has one of each process.

    The parts have ``N // chunks`` of the N examples; what is left over is one part more, however few it has. A part in
    which every value is undefined is left out (there it makes the whole figure undefined).

    Args:
        chunks: At least 1.
        **kwargs: See ``torchmetrics.Metric``.
    """

    def __init__(self, chunks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chunks = chunks

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN if no example has a value."""
        values = self.rows()[0].squeeze(-1)
        self.count, self.skipped = int((~values.isnan()).sum()), int(values.isnan().sum())
        parts = torch.split(values, max(1, len(values) // self.chunks))
        means = torch.stack([part.nanmean() for part in parts]) if len(values) else values.new_full((1,), torch.nan)
        return means.nanmean().to(self.device, torch.float32)


class IOUF1(PerExampleMean):
    """F1 of the mean precision and the mean recall of predicted spans; see :func:`span_matches`.

    ERASER's macro F1. Another quantity goes by the same name: the Jaccard index of token sets.
    """

    higher_is_better = True
    columns = 2

    def update(self, precision: Tensor, recall: Tensor, index: Tensor) -> None:
        """Add a batch: the results of :func:`span_matches`, each ``(B,)``, and indices ``(B,)``."""
        self.add(torch.stack([precision, recall], dim=-1), index)

    def compute(self) -> Tensor:
        """The F1, a scalar in [0, 1]; NaN if no text has evidence."""
        precision, recall = self.means()
        return f1(precision, recall).to(self.device, torch.float32)
