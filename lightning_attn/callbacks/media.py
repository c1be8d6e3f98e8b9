"""Pages, pictures and tables: into the run folder, and to the loggers that can show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

if TYPE_CHECKING:  # imported by whoever draws
    from matplotlib.figure import Figure

Cell = str | int | float


@dataclass
class Media:
    """What one epoch has to show.

    Attributes:
        page: A complete HTML document; the run folder gets it.
        html: A piece of HTML about this epoch alone; W&B gets it.
        columns: Names of the table's columns.
        rows: Rows of the table about this epoch alone; W&B gets it.
        figure: The run folder gets it as PNG, TensorBoard as an image.
    """

    page: str
    html: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    figure: Figure


def show(trainer: Trainer, folder: Path, stage: str, name: str, media: Media) -> None:
    """Write and log the media of this epoch; only the process of rank 0 calls it. What cannot be written is left out.

    Args:
        trainer: Its loggers are asked.
        folder: From ``folder_of``; it gets ``NAME/STAGE.html`` and ``NAME/STAGE.png``, replaced every time.
        stage: ``val`` or ``test``.
        name: W&B gets ``STAGE/NAME_html`` and ``STAGE/NAME_table``, TensorBoard an image ``STAGE/NAME``.
        media: What to show.
    """
    key = f"{stage}/{name}"
    with _forgiving("The run folder", OSError):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{stage}.html").write_text(media.page, encoding="utf-8")
        media.figure.savefig(folder / name / f"{stage}.png")
    for logger in trainer.loggers:
        with _forgiving(type(logger).__name__, Exception):
            if isinstance(logger, WandbLogger):
                _to_wandb(logger, key, media, trainer)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(key, media.figure, trainer.global_step)


@contextmanager
def _forgiving(who: str, failures: type[Exception]) -> Iterator[None]:
    """A full disk is no reason to lose a training, and neither is a service that fails."""
    try:
        yield
    except failures as error:
        rank_zero_warn(f"{who} could not take the highlighted texts of this epoch; the training goes on: {error}")


def _to_wandb(logger: WandbLogger, key: str, media: Media, trainer: Trainer) -> None:
    import wandb

    table = wandb.Table(columns=list(media.columns), data=[list(row) for row in media.rows])
    page = wandb.Html(media.html, data_is_not_path=True)
    # `epoch` beside them, as beside every metric, so that W&B can put them on the same axis.
    values = {f"{key}_html": page, f"{key}_table": table, "epoch": trainer.current_epoch}
    logger.log_metrics(values, step=trainer.global_step)
