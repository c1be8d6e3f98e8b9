"""Pages, pictures and tables: into the run folder, and to the loggers that can show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from lightning_attn.ops.files import save_figure, write_text
from lightning_attn.ops.text import visible

if TYPE_CHECKING:  # imported by whoever draws
    from matplotlib.figure import Figure

Cell = str | int | float | None


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
    what = "the highlighted texts of this epoch"
    with _forgiving("The run folder", what, OSError):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_text(folder / name / f"{stage}.html", media.page)
        save_figure(media.figure, folder / name / f"{stage}.png")
    for logger in trainer.loggers:
        with _forgiving(type(logger).__name__, what, Exception):
            if isinstance(logger, WandbLogger):
                import wandb

                page = wandb.Html(media.html, data_is_not_path=True)
                table = wandb.Table(
                    columns=list(media.columns), data=[[_cell(cell) for cell in row] for row in media.rows]
                )
                _to_wandb(logger, {f"{key}_html": page, f"{key}_table": table}, trainer)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(key, media.figure, trainer.global_step)


def publish(
    trainer: Trainer,
    place: Path,
    key: str,
    document: str,
    figures: Mapping[str, Figure],
    rows: Sequence[Mapping[str, Cell | list[str]]],
) -> None:
    """Write and log a result; only the process of rank 0 calls it. What cannot be written is left out.

    Args:
        trainer: Its loggers are asked.
        place: The file without its ending: it gets ``PLACE.json``, and the folder it lies in ``FIGURE.png`` and
            ``FIGURE.svg``, replaced every time.
        key: W&B gets a table ``KEY_table``, and beside it, as does TensorBoard, an image ``FIGURE_figure`` each.
        document: Content of the file.
        figures: By their names.
        rows: Of the table, all with the same columns; W&B shows the first 10,000.
    """
    what = f"the result {key}"
    with _forgiving("The run folder", what, OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place.with_suffix(".json"), document)
        for name, figure in figures.items():
            for ending in ("png", "svg"):
                save_figure(figure, place.parent / f"{name}.{ending}")
    images = {f"{key.rsplit('/', 1)[0]}/{name}_figure": figure for name, figure in figures.items()}
    for logger in trainer.loggers:
        with _forgiving(type(logger).__name__, what, Exception):
            if isinstance(logger, WandbLogger):
                import wandb

                cells = [[_cell(cell) for cell in row.values()] for row in rows]
                table = wandb.Table(columns=list(rows[0]), data=cells)
                pictures = {name: wandb.Image(figure) for name, figure in images.items()}
                _to_wandb(logger, {**pictures, f"{key}_table": table}, trainer)
            elif isinstance(logger, TensorBoardLogger):
                for name, figure in images.items():
                    logger.experiment.add_figure(name, figure, trainer.global_step, close=False)


@contextmanager
def _forgiving(who: str, what: str, failures: type[Exception]) -> Iterator[None]:
    """A full disk is no reason to lose a training, and neither is a service that fails."""
    try:
        yield
    except failures as error:
        rank_zero_warn(f"{who} could not take {what}; the training goes on: {error}")


def _cell(cell: Cell | list[str]) -> Cell:
    cell = ", ".join(cell) if isinstance(cell, list) else cell
    return visible(cell) if isinstance(cell, str) else cell


def _to_wandb(logger: WandbLogger, values: Mapping[str, Any], trainer: Trainer) -> None:
    # `epoch` beside them, as beside every metric, so that W&B can put them on the same axis.
    logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step)
