"""Learning rates that change with every step of the optimiser: warm-up, then decay."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from lightning_attn.errors import InputError


class StepSchedule(LRScheduler):
    """A linear warm-up from 0, and then what the subclass says; it steps with the optimiser, not with the epoch.

    A step is one of the optimiser, so several accumulated batches are one, and a resumed run goes on where it was.
    The LightningModule tells the schedule how many steps the Trainer will take; with more ``max_epochs`` than the run
    that is resumed had, the schedule is that of the longer run. Any scheduler whose class says ``interval = "step"``
    is stepped like this.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = WarmupLinear(optimizer, warmup=2, total_steps=6)
        >>> rates = []
        >>> for _ in range(6):
        ...     rates += schedule.get_last_lr()
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]

    Args:
        optimizer: Whose rates are multiplied, each group's own.
        warmup: Share of all steps if below 1, otherwise a number of steps; 0 begins with the full rate.
        total_steps: After so many the schedule is at its end; None means the last step of the Trainer.
        last_epoch: As in every scheduler of PyTorch: number of the last step, -1 for a new run.

    Raises:
        InputError: ``warmup`` is negative, or above 1 and no whole number, or ``total_steps`` is below 1.
    """

    #: What Lightning is told: step after every optimiser step.
    interval = "step"

    def __init__(
        self, optimizer: Optimizer, warmup: float = 0.1, total_steps: int | None = None, last_epoch: int = -1
    ) -> None:
        if warmup < 0 or (warmup >= 1 and warmup != int(warmup)):
            raise InputError(
                f"warmup must be a share of the steps (from 0 to below 1) or a whole number of steps, not {warmup:g}."
            )
        if total_steps is not None and total_steps < 1:
            raise InputError(f"total_steps must be 1 or more, not {total_steps}.")
        self.warmup = warmup
        self.total_steps = total_steps
        self._planned: int | None = None
        super().__init__(optimizer, last_epoch)

    def plan(self, steps: float) -> None:
        """Learn how many steps there will be; of no effect where ``total_steps`` was given.

        Args:
            steps: Of the optimiser; infinite if the Trainer never stops.

        Raises:
            InputError: The number is needed, and infinite.
        """
        if self.total_steps is not None:
            return
        if not 0 < steps < math.inf:
            raise InputError(
                f"{type(self).__name__} needs to know when training ends: set --trainer.max_epochs or "
                "--trainer.max_steps, or its own total_steps."
            )
        self._planned = int(steps)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = self.get_lr()

    @abstractmethod
    def decay(self, share: float) -> float:
        """Share of the full rate when ``share`` of the steps after the warm-up is done, both in [0, 1]."""

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group at this step.

        Raises:
            InputError: Nobody said how many steps there will be.
        """
        factor = self._factor(self.last_epoch)
        return [rate * factor for rate in self.base_lrs]

    def _factor(self, step: int) -> float:
        if step == 0:
            return 0.0 if self.warmup else self.decay(0.0)  # asked for before the number of steps is known
        total = self._planned if self.total_steps is None else self.total_steps
        if total is None:
            raise InputError(f"{type(self).__name__} needs total_steps where no LightningModule of this project runs.")
        first = math.ceil(total * self.warmup) if self.warmup < 1 else int(self.warmup)
        if step < first:
            return step / first
        return self.decay(min(1.0, (step - first) / max(1, total - first)))

    def state_dict(self) -> dict[str, Any]:
        """As always, without the number of steps of this run: a resumed one may be longer."""
        return {name: value for name, value in super().state_dict().items() if name != "_planned"}


class WarmupLinear(StepSchedule):
    """Linear warm-up, then linear decay to 0: what fine-tuning of transformers usually takes.

    The same rates as ``get_linear_schedule_with_warmup`` of Hugging Face. Source: Devlin et al., NAACL 2019,
    https://aclanthology.org/N19-1423. Arguments: see :class:`StepSchedule`.
    """

    @override
    def decay(self, share: float) -> float:
        return 1.0 - share


class WarmupCosine(StepSchedule):
    """Linear warm-up, then half a cosine down to 0. Arguments: see :class:`StepSchedule`.

    Source: Loshchilov and Hutter, ICLR 2017, https://arxiv.org/abs/1608.03983, without restarts.
    """

    @override
    def decay(self, share: float) -> float:
        return (1.0 + math.cos(math.pi * share)) / 2


class WarmupConstant(StepSchedule):
    """Linear warm-up, then the full rate. Arguments: see :class:`StepSchedule`."""

    @override
    def decay(self, share: float) -> float:
        return 1.0
