"""``lightning explain``: prediction and importance of every token, as lines of JSON and as a page."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning_attn.attribution import KERNELS
from lightning_attn.attribution.heads.heads_file import HeadsFile
from lightning_attn.cli.arguments import Arguments, output_path
from lightning_attn.cli.console import quiet
from lightning_attn.cli.explain_methods import NAMES, check_extras, method_by_name
from lightning_attn.cli.hub_models import read_hub_model
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer, Explanation, default_methods
from lightning_attn.explain.explainer import DEFAULT_METHODS, DEFAULT_METHODS_OF_ANSWERS
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.ops.files import write_text
from lightning_attn.ops.text import to_json


def explain_command(options: Sequence[str]) -> int:
    """Run ``lightning explain``.

    Args:
        options: What stands after the command.

    Returns:
        Exit status.

    Raises:
        InputError: The user's input was wrong.
    """
    parser = Arguments(
        "explain",
        "Explain texts with a checkpoint, or a model of the Hub: prediction, and the importance of every token.",
        'lightning-attn explain --ckpt_path runs/RUN/checkpoints/best.ckpt --text "a great film" --output page.html',
    )
    parser.add_argument("--ckpt_path", help="a checkpoint that fit wrote; this or --model")
    parser.add_argument(
        "--model",
        help="a classifier, or a model that answers questions, of the Hugging Face Hub, by name or folder",
    )
    parser.add_argument("--text", nargs="+", action="extend", default=[], help="texts, each in quotes")
    parser.add_argument(
        "--query",
        nargs="+",
        action="extend",
        help="question or hypothesis: one a text, or one for all, where the network reads pairs or answers",
    )
    parser.add_argument("--file", help="a text file, one text a line; - is the standard input")
    parser.add_argument(
        "--method",
        default="",
        help=f"separated by commas, of: {', '.join(NAMES)} (default: {','.join(DEFAULT_METHODS)}; of answers "
        f"{','.join(DEFAULT_METHODS_OF_ANSWERS)})",
    )
    parser.add_argument("--neighbours", help="for lafa: the folder that lightning-attn index wrote for this checkpoint")
    parser.add_argument(
        "--kernel", default="rbf", help=f"for lafa: how words are compared, {', '.join(KERNELS)} (default: %(default)s)"
    )
    parser.add_argument(
        "--lambda", dest="strength", type=float, default=1.0, help="for lafa: weight of what is lent (default: 1)"
    )
    parser.add_argument(
        "--cutoff",
        type=float,
        default=0.05,
        help="for lafa: as near as this share of the pairs of training texts is near; 1: any (default: %(default)s)",
    )
    parser.add_argument("--heads", help="for mask_lrp: the JSON file of lightning-attn heads")
    parser.add_trust()
    parser.add_argument("-o", "--output", help="write a page to look at, such as page.html")
    parser.add_argument("--json", default="-", help="where one JSON object a text goes (default: the standard output)")
    parser.add_argument("--batch_size", type=int, default=32, help="texts read at once (default: %(default)s)")
    arguments = parser.parse(options)
    if arguments is None:
        return 0
    texts = [*arguments.text, *(_read(arguments.file) if arguments.file else [])]
    if not texts:
        raise InputError("There is nothing to explain: give --text or --file.")
    for text in [*texts, *(arguments.query or [])]:
        if any("\ud800" <= character <= "\udfff" for character in text):  # how Python keeps what it cannot decode
            raise InputError(f"The text {text!a} is not valid in the encoding of this terminal.")
    if arguments.batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, not {arguments.batch_size}.")
    queries = arguments.query
    if queries is not None and len(queries) == 1:
        queries = queries * len(texts)
    methods = [name.strip() for name in arguments.method.split(",") if name.strip()]
    if (arguments.ckpt_path is None) == (arguments.model is None):
        raise InputError("Give one of --ckpt_path, a checkpoint that fit wrote, and --model, one of the Hub.")
    source = arguments.ckpt_path or arguments.model
    inputs = [("--ckpt_path" if arguments.model is None else "--model", source)]
    if arguments.file and arguments.file != "-":
        inputs.append(("--file", arguments.file))
    check_extras(methods, arguments)
    if arguments.heads is not None:
        inputs.append(("--heads", arguments.heads))
    lines_to = None if arguments.json == "-" else output_path("--json", arguments.json, inputs)
    if lines_to is not None:
        inputs.append(("--json", arguments.json))
    page_to = output_path("--output", arguments.output, inputs) if arguments.output else None
    with quiet():
        if arguments.model is None:
            explainer = Explainer(source, arguments.trust)
        else:
            explainer = Explainer.from_network(*read_hub_model(source, pairs=queries is not None))
        progress = len(texts) > arguments.batch_size and sys.stderr.isatty()
        names = methods or default_methods(explainer.network)
        made = {name: method_by_name(name, arguments, explainer.network) for name in names}
        explanations = explainer.explain(texts, made, arguments.batch_size, progress, queries)
        alone = sum(item.neighbours == [] for item in explanations)
        if alone:
            warnings.warn(
                f"{alone:,} of {len(texts):,} texts have no neighbour within the cut-off; lafa shows base scores.",
                stacklevel=2,
            )
        if overflowing := [name for name in explanations[0].attributions if not _finite(explanations, name)]:
            warnings.warn(
                f"Some attributions of {', '.join(overflowing)} overflow: they are null in the JSON.", stacklevel=2
            )
    lines = "".join(f"{to_json(item.as_dict())}\n" for item in explanations)
    if lines_to is None:
        sys.stdout.buffer.write(lines.encode())  # UTF-8, as in a file, whatever the locale
        sys.stdout.buffer.flush()
    else:
        write_text(lines_to, lines)
    if page_to is not None:
        from lightning_attn.visualization.explain_page import explain_page

        heads = _head_map(arguments.heads, explainer.network) if arguments.heads else ""
        write_text(page_to, explain_page(explanations, source, heads))
        print(f"Wrote {page_to}", file=sys.stderr)
    return 0


def _finite(explanations: Sequence[Explanation], name: str) -> bool:
    return all(math.isfinite(value) for item in explanations for value in item.attributions[name])


def _head_map(path: str, network: AttentionNetwork) -> str:
    from lightning_attn.visualization.explain_page import head_map

    assert isinstance(network, TransformerModel)  # no other can be explained by a method that chooses attention heads
    content = HeadsFile.read(path)  # the method has seen that it is of this network
    return head_map(content.layers, network.heads_per_layer, content.reasons)


def _read(path: str) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
        # Not splitlines: a text may hold other characters that it takes for the end of a line, such as U+2028.
        lines = [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start} cannot be read.") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise InputError(f"{path} holds no text: one text a line is expected.")
    return texts
