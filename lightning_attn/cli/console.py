"""What a person at a terminal gets to read: less of Lightning's advice, and warnings of one line."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_attn.ops.text import visible

#: Messages of Lightning that are of no use here, by how they begin or what they contain.
_LOGGED = (
    "Tip: ",  # advertises another product
    "GPU available:",  # EpochLines says what is used
    "TPU available:",
    "HPU available:",
    "predict returned None",  # an empty batch, where processes have unequal shares
    "Initializing distributed:",  # each process says so
    "Seed set to",  # config.yaml has it
    "`Trainer.fit` stopped: `max_epochs",  # that is what was asked for
    "Restoring states from the checkpoint",  # said again by "Restored all states"
)
#: Regular expressions on warnings that the user cannot or should not act on.
_WARNED = (
    ".*JsonargparseDeprecationWarning.*",  # Lightning 2.6 against jsonargparse 4.53
    ".*skip_unset.*",
    ".*predict returned None.*",  # an empty batch, where processes have unequal shares
    ".*does not have many workers.*",  # batches of token ids are made faster than workers can send them
    ".*smaller than the logging interval.*",  # nothing of ours is logged by the step
    ".*LeafSpec.*is deprecated.*",  # Lightning 2.6 against PyTorch 2.13, no setting of ours
    ".*in eval mode at the start of training.*",  # a mitigation freezes them, or will
    ".*`weights_only` was not set.*",
    ".*torch.distributed.nn.functional.all_gather is deprecated.*",  # torchmetrics 1.9 against PyTorch 2.13
)


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg, record.args = visible(message), ()
        return not any(part in message for part in _LOGGED)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what nobody can act on, and print warnings as ``warning: ...`` on one line, once each."""
    loggers = [
        logging.getLogger(name)
        for name in (
            "pytorch_lightning.utilities.rank_zero",
            "lightning_fabric.utilities.rank_zero",
            "lightning_fabric.utilities.seed",
        )
    ]
    noise = _Filter()
    for logger in loggers:
        logger.addFilter(noise)
    with warnings.catch_warnings():
        for pattern in _WARNED:
            warnings.filterwarnings("ignore", message=pattern)
        warnings.filterwarnings("once", message=".* is now called ", category=DeprecationWarning)  # names of 0.1.0
        warnings.showwarning = _show  # type: ignore[assignment]  # takes any arguments
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(noise)


def _show(message: Warning | str, *_: object) -> None:
    print(f"warning: {visible(' '.join(str(message).split()))}", file=sys.stderr, flush=True)
