"""``lightning silent-failures``: is the attention right where the predictions are, over many trainings?"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_attn.cli.arguments import Arguments, output_path
from lightning_attn.errors import InputError
from lightning_attn.ops.files import write_text
from lightning_attn.ops.text import visible
from lightning_attn.visualization.silent_failures import Thresholds, read_trainings
from lightning_attn.visualization.silent_failures_page import HEADER, page, rows


def silent_failures_command(options: Sequence[str]) -> int:
    """Run ``lightning silent-failures``.

    Args:
        options: What stands after the command.

    Returns:
        Exit status.

    Raises:
        InputError: The user's input was wrong.
    """
    parser = Arguments(
        "silent-failures",
        "Over many trainings, how often are the predictions good and the attention wrong? Each run counts with the "
        "epoch of its best checkpoint; the folder of an ensemble with its members; a run that tested an ensemble as "
        "an ensemble of its size.",
        "lightning-attn silent-failures runs/ten runs/20260101-120000-test --output silent.html",
    )
    limits = Thresholds()
    parser.add_argument("runs", nargs="+", help="run folders, and folders of lightning-attn ensemble")
    parser.add_argument("--prediction", help="metric of the predictions, as logged (default: test/auroc or val/auroc)")
    parser.add_argument(
        "--attention", help="AUROC of the attention, as logged (default: instances/auroc or plausibility/auroc)"
    )
    parser.add_argument("--good", type=float, default=limits.good, help="good predictions (default: %(default)s)")
    parser.add_argument("--bad", type=float, default=limits.bad, help="wrong attention is below (default: %(default)s)")
    parser.add_argument("-o", "--output", help="write a page to look at, such as silent.html")
    arguments = parser.parse(options)
    if arguments is None:
        return 0
    for name in ("good", "bad"):
        if not 0 <= getattr(arguments, name) <= 1:
            raise InputError(f"silent-failures: --{name} must be from 0 to 1, not {getattr(arguments, name):g}.")
    output = output_path("--output", arguments.output) if arguments.output else None
    limits = Thresholds(good=arguments.good, bad=arguments.bad)
    trainings = [
        training
        for folder in arguments.runs
        for training in read_trainings(folder, arguments.prediction, arguments.attention)
    ]
    _print(rows(trainings, limits))
    if output is not None:
        write_text(output, page(trainings, limits))
        print(f"Wrote {output}")
    return 0


def _print(table: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    names, *figures = zip(*table, strict=True)
    turned = Table("", *map(visible, names))  # a terminal is rather long than wide
    for title, values in zip(HEADER[1:], figures, strict=True):
        turned.add_row(title, *values)
    Console(markup=False).print(turned)
