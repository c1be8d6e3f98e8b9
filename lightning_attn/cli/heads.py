"""``lightning heads``: which attention heads of a transformer are important, by what they look at in parsed text."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from lightning_attn.attribution.heads import (
    AlignedTexts,
    Criterion,
    HeadStatistics,
    Positional,
    Syntactic,
    align,
    head_statistics,
    important_heads,
    random_heads,
    reasons,
)
from lightning_attn.attribution.heads.heads_file import write_heads
from lightning_attn.cli.arguments import Arguments, output_path
from lightning_attn.cli.console import quiet
from lightning_attn.cli.hub_models import explained_by, read_transformer
from lightning_attn.data.conllu import read_conllu
from lightning_attn.errors import InputError
from lightning_attn.ops.files import save_figure
from lightning_attn.ops.registry import Registry
from lightning_attn.ops.text import visible
from lightning_attn.runs.class_paths import trusting
from lightning_attn.visualization.heads_figure import heads_figure

_PICTURES = (".png", ".svg", ".pdf")
_FEW = 50  # dependencies; a share of hits among fewer says little


def heads_command(options: Sequence[str]) -> int:
    """Run ``lightning heads``.

    Args:
        options: What stands after the command.

    Returns:
        Exit status.

    Raises:
        InputError: The user's input was wrong.
    """
    arguments = _parser().parse(options)
    if arguments is None:
        return 0
    for name, least in (("max_tokens", 1), ("controls", 0)):
        if getattr(arguments, name) < least:
            raise InputError(f"--{name} must be at least {least}, not {getattr(arguments, name)}.")
    criteria = _criteria(arguments)
    relations = list(dict.fromkeys(name.strip() for name in arguments.relations.split(",") if name.strip()))
    inputs = [("--model", arguments.model), *(("--conllu", path) for path in arguments.conllu)]
    output = output_path("--output", arguments.output, inputs)
    picture = output_path(
        "--picture", arguments.picture or str(output.with_suffix(".png")), [*inputs, ("--output", arguments.output)]
    )
    if picture.suffix not in _PICTURES:
        raise InputError(f"--picture {picture} must end in {', '.join(_PICTURES)}.")
    with quiet(), trusting(arguments.trust):
        parses = [parse for path in arguments.conllu for parse in read_conllu(path)]
        network, processor = read_transformer(arguments.model)
        network.to("cuda" if torch.cuda.is_available() else "cpu")
        aligned = align(parses, processor.tokenizer, relations, network.max_length, processor.pad_id)
        _check(aligned, criteria, arguments)
        statistics = head_statistics(
            network, aligned, arguments.max_tokens, arguments.ignore_special, progress=sys.stderr.isatty()
        )
        heads = important_heads(statistics, criteria)
        found = {
            "files": arguments.conllu,
            "criteria": {criterion.name: vars(criterion) for criterion in criteria},
            "ignore_special": arguments.ignore_special,
            "reasons": {f"{layer}.{head}": why for (layer, head), why in reasons(statistics, criteria).items()},
            **statistics.as_dict(),
        }
        write_heads(output, heads, network, found)
        count = sum(map(len, heads))
        total = network.depth * network.heads_per_layer
        title = f"{count} of {total} attention heads are important"
        save_figure(heads_figure(statistics, criteria, title), picture)
        written = [output, picture]
        for number in range(arguments.controls):
            seed = arguments.seed + number
            control = output.with_name(f"{output.stem}.random{seed}{output.suffix}")
            drawn = random_heads(heads, network.heads_per_layer, seed)
            write_heads(control, drawn, network, {"control_of": output.name, "seed": seed})
            written.append(control)
    _print(statistics, criteria)
    print(f"{title} ({count / total:.0%}). Wrote {', '.join(map(str, written))}")
    print(
        f"To use it: lightning-attn explain {explained_by(arguments.model)} --method mask_lrp --heads {output} "
        '--text "..." --output page.html',
        file=sys.stderr,
    )
    return 0


def _parser() -> Arguments:
    parser = Arguments(
        "heads",
        "Which attention heads of a transformer are important, for explain --method mask_lrp: those that look from a "
        "word to the one that it depends on, more often than any fixed offset would hit, and those that nearly always "
        "look the same number of tokens ahead or back. Give texts that the model was trained on, or others; not those "
        "whose explanations are to be evaluated.",
        "lightning-attn heads --model runs/RUN --conllu en_ewt-ud-train.conllu --output heads.json",
    )
    parser.add_argument(
        "--model", required=True, help="a run folder or checkpoint of a transformer; or a Hugging Face model"
    )
    parser.add_trust()
    parser.add_argument("--conllu", required=True, nargs="+", metavar="FILE", help="parsed sentences, in CoNLL-U")
    parser.add_argument("-o", "--output", required=True, help="the JSON file to write, such as heads.json")
    parser.add_argument(
        "--picture", help="a map of layers and attention heads, .png, .svg or .pdf (default: beside the output, .png)"
    )
    parser.add_argument(
        "--criteria", default="syntactic,positional", help="one of them, or both (default: %(default)s)"
    )
    parser.add_argument("--relations", default="nsubj,obj,amod,advmod", help="for syntactic (default: %(default)s)")
    parser.add_argument(
        "--direction",
        default="to_head",
        help="for syntactic: which word looks at the other: to_head, to_dependent, either (default: %(default)s)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.1,
        help="for syntactic: hits above those of the commonest offset (default: %(default)s)",
    )
    parser.add_argument(
        "--offset_share", type=float, default=0.8, help="for positional: above it (default: %(default)s)"
    )
    parser.add_argument(
        "--ignore_special", action="store_true", help="what is looked at most is a word, never [CLS] or [SEP]"
    )
    parser.add_argument(
        "--controls",
        type=int,
        default=0,
        help="write so many files of random attention heads too, as many in each layer as are important (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first of these (default: %(default)s)")
    parser.add_argument(
        "--max_tokens", type=int, default=8192, help="positions read at once, padding included (default: %(default)s)"
    )
    return parser


def _criteria(arguments: Namespace) -> list[Criterion]:
    criteria: Registry[Criterion] = Registry(
        "criterion",
        "criteria",
        {
            "syntactic": Syntactic(arguments.margin, arguments.direction),
            "positional": Positional(arguments.offset_share),
        },
    )
    names = list(dict.fromkeys(name.strip() for name in arguments.criteria.split(",") if name.strip()))
    return [criteria[name] for name in names or [""]]


def _check(aligned: AlignedTexts, criteria: Sequence[Criterion], arguments: Namespace) -> None:
    """Say what was left out, and where there is little or nothing to count.

    Raises:
        InputError: Syntactic attention heads are asked for, and there is no dependency that could show them.
    """
    left_out = [
        (aligned.repeated, "sentences that are repeated"),
        (aligned.too_long, "sentences that are longer than the model can read"),
        (aligned.unaligned, "dependencies of words that have no token of their own"),
    ]
    if some := [f"{what}: {count:,}" for count, what in left_out if count]:
        print(f"Left out: {'; '.join(some)}.", file=sys.stderr)
    if not any(isinstance(criterion, Syntactic) for criterion in criteria):
        return
    files = " and ".join(arguments.conllu)
    if not len(aligned.arcs):
        raise InputError(
            f"{files} has no dependency called {' or '.join(aligned.relations) or 'anything'} between words with "
            "tokens: give other --relations, or --criteria positional."
        )
    counts = np.bincount(aligned.arcs[:, 1], minlength=len(aligned.relations)).tolist()
    if few := [f"{count} {name}" for count, name in zip(counts, aligned.relations, strict=True) if count < _FEW]:
        warnings.warn(f"{files} has only {', '.join(few)}: their hits say little.", stacklevel=2)


def _print(statistics: HeadStatistics, criteria: Sequence[Criterion]) -> None:
    console = Console(markup=False)
    for criterion in criteria:
        syntactic = isinstance(criterion, Syntactic)
        table = Table(criterion.name, title_justify="left")
        for name in ("dependencies", "commonest offset", "best attention head") if syntactic else ("attention looks",):
            table.add_column(name, justify="right")
        table.add_column("important", justify="right")
        for mark, mask in criterion.marks(statistics).items():
            cells = _relation(statistics, mark) if syntactic else (_looks(int(mark)),)
            table.add_row(visible(mark), *cells, str(int(mask.sum())))
        if not syntactic:
            table.add_row("best", _best(criterion.strength(statistics)), "")
        console.print(table)
    print(
        f"{statistics.sentences:,} sentences, {statistics.tokens:,} tokens; attention heads are written as "
        "layer.number, from 0."
    )


def _relation(statistics: HeadStatistics, mark: str) -> tuple[str, str, str]:
    """How many dependencies, what hits without looking, and what hits most."""
    name = mark.removeprefix("< ")
    direction, number = int(mark != name), statistics.relations.index(name)
    if not (count := int(statistics.arcs[number])):
        return "0", "", ""
    offset = int(statistics.baseline_offset[direction, number])
    share = float(statistics.baseline[direction, number])
    return f"{count:,}", f"{share:.1%} at {offset:+d}", _best(statistics.accuracy[direction, number])


def _looks(offset: int) -> str:
    if abs(offset) <= 1:
        return ("at the token before", "at the token itself", "at the next token")[offset + 1]
    return f"{abs(offset)} tokens {'ahead' if offset > 0 else 'back'}"


def _best(shares: torch.Tensor) -> str:
    layer, head = divmod(int(shares.argmax()), shares.shape[1])
    return f"{shares[layer, head]:.1%} ({layer}.{head})"
