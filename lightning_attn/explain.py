"""``lightning explain``: what a checkpoint says about a text, and what it looked at."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jsonargparse import ArgumentError
from rich.console import Console
from rich.progress import track

from lightning_attn import attribution
from lightning_attn.checkpoint_file import read_checkpoint
from lightning_attn.commands.arguments import Arguments, output_path
from lightning_attn.commands.console import quiet
from lightning_attn.commands.parse_errors import sentence
from lightning_attn.data.processor import TextProcessor
from lightning_attn.modules import AttentionClassifier
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import InputError

DEFAULT_METHODS = ("attention", "gradient", "occlusion")


@dataclass
class Explanation:
    """One text, explained.

    Attributes:
        text: As it was given.
        prediction: Name of the most probable class; the class that the scores explain.
        probabilities: By class name.
        tokens: What the network read, boundary tokens left out.
        scores: By method, one number a token.
        query: Question or hypothesis that the text was read under; None for single texts.
    """

    text: str
    prediction: str
    probabilities: dict[str, float]
    tokens: list[str]
    scores: dict[str, list[float]]
    query: str | None = None


class Explainer:
    """A network and the text processor that belongs to it, out of a checkpoint.

    Example:
        >>> explainer = Explainer("runs/20260101-120000-quickstart/checkpoints/best.ckpt")  # doctest: +SKIP
        >>> explainer.explain(["the film was great"])[0].prediction  # doctest: +SKIP
        'positive'

    Args:
        path: A checkpoint that ``lightning fit`` wrote.

    Raises:
        InputError: The checkpoint cannot be used for this.
    """

    def __init__(self, path: str | Path) -> None:
        checkpoint = read_checkpoint(path)
        if "network" not in checkpoint.get("hyper_parameters", {}):
            raise InputError(
                f"The checkpoint {path} was written from Python, without a description of its network; in Python, load "
                "it with AttentionClassifier.load_from_checkpoint(path, network=...) and explain with that."
            )
        if "processor" not in checkpoint["data"]:
            raise InputError(f"The checkpoint {path} holds no text processor: its data are not texts.")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = TextProcessor.from_state(checkpoint["data"]["processor"])
        try:
            module = AttentionClassifier.load_from_checkpoint(path, map_location=self.device, weights_only=True)
        except ArgumentError as error:
            raise InputError(
                f"The network of the checkpoint {path} cannot be made: {sentence(str(error))} Explain from the folder "
                "that fit was run in, where its classes can be imported."
            ) from error
        self.network: AttentionNetwork = module.network.eval()

    def explain(
        self,
        texts: Sequence[str],
        methods: Sequence[str] = DEFAULT_METHODS,
        batch_size: int = 32,
        progress: bool = False,
        queries: Sequence[str] | None = None,
    ) -> list[Explanation]:
        """Explain texts.

        Args:
            texts: None of them empty.
            methods: Names of attribution methods.
            batch_size: Texts read at once.
            progress: Whether to show a bar on the standard error stream.
            queries: Question or hypothesis of each text, for a network that reads pairs; None for single texts.

        Returns:
            One explanation a text, in their order.

        Raises:
            InputError: A text or a query is empty, a method is unknown, or queries are missing or out of place.
        """
        if not texts:
            return []
        makers = {name: attribution.get(name) for name in methods}
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"Text {number} of {len(texts)} is empty: there is nothing to explain in it.")
        self._check_queries(texts, queries)
        if cut := self.processor.encode(texts).truncated:
            limit = self.processor.max_length
            warnings.warn(
                f"{cut:,} of {len(texts):,} texts exceed {limit} tokens; their end is not read.", stacklevel=2
            )
        # Texts of one length stand together, so that little is padded.
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        found: dict[int, Explanation] = {}
        for rows in track(batches, "Explaining", console=Console(stderr=True), disable=not progress, transient=True):
            asked = None if queries is None else [queries[row] for row in rows]
            explained = self._explain_batch([texts[row] for row in rows], asked, makers)
            found.update(zip(rows, explained, strict=True))
        return [found[row] for row in range(len(texts))]

    def _check_queries(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        pairs = type(self.network).read_query is not AttentionNetwork.read_query
        if pairs and queries is None:
            raise InputError("The checkpoint's network reads a text and a query: give the query too (--query).")
        if queries is None:
            return
        if not pairs:
            raise InputError("The checkpoint's network reads single texts: leave the query out.")
        if len(queries) != len(texts):
            raise InputError(f"There are {len(texts)} texts but {len(queries)} queries: give one query a text.")
        for number, query in enumerate(queries, 1):
            if not query.strip():
                raise InputError(f"Query {number} of {len(queries)} is empty: there is nothing to ask in it.")

    def _explain_batch(
        self, texts: list[str], queries: list[str] | None, methods: dict[str, attribution.Attribution]
    ) -> list[Explanation]:
        batch = self.processor.batch(texts, queries).to(self.device)
        schema = self.network.schema
        with torch.no_grad():
            probabilities = schema.probabilities(self.network(batch).logits)
        target = probabilities.argmax(dim=-1)
        scores = {name: method.attribute(self.network, batch, target) for name, method in methods.items()}
        names = schema.class_names or tuple(str(number) for number in range(schema.num_classes))
        explanations = []
        for row, text in enumerate(texts):
            shown = batch.inner[row, : int(batch.valid[row].sum())].tolist()
            surface = self.processor.surface(text)
            explanations.append(
                Explanation(
                    text=text,
                    prediction=names[int(target[row])],
                    probabilities=dict(zip(names, probabilities[row].tolist(), strict=True)),
                    tokens=[token for token, keep in zip(surface, shown, strict=True) if keep],
                    scores={name: values[row][batch.inner[row]].tolist() for name, values in scores.items()},
                    query=None if queries is None else queries[row],
                )
            )
        return explanations


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
        "Explain texts with a checkpoint: prediction, and the importance of every token.",
        'lightning-attn explain --ckpt_path runs/RUN/checkpoints/best.ckpt --text "a great film" --output page.html',
    )
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint that fit wrote")
    parser.add_argument("--text", nargs="+", action="extend", default=[], help="texts, each in quotes")
    parser.add_argument(
        "--query",
        nargs="+",
        action="extend",
        help="question or hypothesis: one a text, or one for all, where the network reads pairs",
    )
    parser.add_argument("--file", help="a text file, one text a line; - is the standard input")
    parser.add_argument(
        "--method",
        default=",".join(DEFAULT_METHODS),
        help=f"separated by commas, of: {', '.join(sorted(attribution.METHODS))} (default: %(default)s)",
    )
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
    methods = [name.strip() for name in arguments.method.split(",") if name.strip()] or list(DEFAULT_METHODS)
    inputs = [("--ckpt_path", arguments.ckpt_path)]
    if arguments.file and arguments.file != "-":
        inputs.append(("--file", arguments.file))
    lines_to = None if arguments.json == "-" else output_path("--json", arguments.json, inputs)
    if lines_to is not None:
        inputs.append(("--json", arguments.json))
    page_to = output_path("--output", arguments.output, inputs) if arguments.output else None
    with quiet():
        explainer = Explainer(arguments.ckpt_path)
        progress = len(texts) > arguments.batch_size and sys.stderr.isatty()
        explanations = explainer.explain(texts, methods, arguments.batch_size, progress, queries)
    lines = "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in explanations).encode()
    if lines_to is None:
        sys.stdout.buffer.write(lines)  # UTF-8, as in a file, whatever the locale
        sys.stdout.buffer.flush()
    else:
        lines_to.write_bytes(lines)
    if page_to is not None:
        from lightning_attn.report.explain_page import explain_page

        page_to.write_text(explain_page(explanations, str(arguments.ckpt_path)), encoding="utf-8")
        print(f"Wrote {page_to}", file=sys.stderr)
    return 0


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
