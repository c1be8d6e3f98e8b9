"""``lightning explain``: what a checkpoint says about a text, and what it looked at."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from lightning_attn import attribution
from lightning_attn.attribution import KERNELS, LAFA
from lightning_attn.commands.arguments import Arguments, output_path
from lightning_attn.commands.console import quiet
from lightning_attn.commands.explain_methods import NAMES, check_extras, method_by_name
from lightning_attn.data.encoded import Encoded
from lightning_attn.data.processor import PairProcessor, TextProcessor
from lightning_attn.neighbours import NeighbourText, neighbour_texts
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.trained import TrainedNetwork
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
        sides: Which text each token is of, 0 the text and 1 the query, where a network reads both as one; else None.
        neighbours: Training texts that lent their importance to the text, the nearest first; None if no method borrows.
    """

    text: str
    prediction: str
    probabilities: dict[str, float]
    tokens: list[str]
    scores: dict[str, list[float]]
    query: str | None = None
    sides: list[int] | None = None
    neighbours: list[NeighbourText] | None = None


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
        trained = TrainedNetwork.read(path)
        if "processor" not in trained.data:
            raise InputError(f"The checkpoint {path} holds no text processor: its data are not texts.")
        if trained.network.schema.spans:
            raise InputError(
                f"The checkpoint {path} answers questions by spans, and explain is for classes: use "
                "AnswerRecallCallback, or the attributions in Python."
            )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = TextProcessor.from_state(trained.data["processor"])
        self.network: AttentionNetwork = trained.network.to(self.device)

    def explain(
        self,
        texts: Sequence[str],
        methods: Sequence[str] | Mapping[str, attribution.Attribution] = DEFAULT_METHODS,
        batch_size: int = 32,
        progress: bool = False,
        queries: Sequence[str] | None = None,
    ) -> list[Explanation]:
        """Explain texts.

        Args:
            texts: None of them empty.
            methods: Names of attribution methods; or the methods themselves, by any name, for those that need more
                than a network, such as ``{"lafa": LAFA(index)}``.
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
        makers = methods if isinstance(methods, Mapping) else {name: attribution.get(name) for name in methods}
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"Text {number} of {len(texts)} is empty: there is nothing to explain in it.")
        self._check_queries(texts, queries)
        if cut := self._encoded(texts, queries).truncated:
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

    def _encoded(self, texts: Sequence[str], queries: Sequence[str] | None) -> Encoded:
        if isinstance(self.processor, PairProcessor) and queries is not None:
            return self.processor.encode_pairs(texts, queries)
        return self.processor.encode(texts)

    def _surface(self, text: str, query: str | None) -> tuple[list[str], list[int] | None]:
        """The pieces of one text, and which text of a pair each is of."""
        if not isinstance(self.processor, PairProcessor) or query is None:
            return self.processor.surface(text), None
        sides = self.processor.encode_pairs([text], [query]).sides
        assert sides is not None
        return self.processor.surface_pair(text, query), sides.tolist()

    def _check_queries(self, texts: Sequence[str], queries: Sequence[str] | None) -> None:
        pairs = self.network.reads_query or isinstance(self.processor, PairProcessor)
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
        self, texts: list[str], queries: list[str] | None, methods: Mapping[str, attribution.Attribution]
    ) -> list[Explanation]:
        batch = self.processor.batch(texts, queries).to(self.device)
        schema = self.network.schema
        with torch.no_grad():
            probabilities = schema.probabilities(self.network(batch).logits)
        target = probabilities.argmax(dim=-1)
        names = schema.class_names or tuple(str(number) for number in range(schema.num_classes))
        scores: dict[str, torch.Tensor] = {}
        lenders: list[list[NeighbourText]] | None = None
        for name, method in methods.items():
            if isinstance(method, LAFA):
                borrowed = method.borrow(self.network, batch, target)
                scores[name] = borrowed.scores
                assert borrowed.neighbours is not None
                lenders = neighbour_texts(method.index, borrowed.neighbours, self.processor.tokens, names)
            else:
                scores[name] = method.attribute(self.network, batch, target)
        explanations = []
        for row, text in enumerate(texts):
            shown = batch.inner[row, : int(batch.valid[row].sum())].tolist()
            query = None if queries is None else queries[row]
            surface, sides = self._surface(text, query)
            explanations.append(
                Explanation(
                    text=text,
                    prediction=names[int(target[row])],
                    probabilities=dict(zip(names, probabilities[row].tolist(), strict=True)),
                    tokens=[token for token, keep in zip(surface, shown, strict=True) if keep],
                    scores={name: values[row][batch.inner[row]].tolist() for name, values in scores.items()},
                    query=query,
                    sides=None if sides is None else [side for side, keep in zip(sides, shown, strict=True) if keep],
                    neighbours=None if lenders is None else lenders[row],
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
        help=f"separated by commas, of: {', '.join(NAMES)} (default: %(default)s)",
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
    check_extras(methods, arguments)
    if arguments.heads is not None:
        inputs.append(("--heads", arguments.heads))
    lines_to = None if arguments.json == "-" else output_path("--json", arguments.json, inputs)
    if lines_to is not None:
        inputs.append(("--json", arguments.json))
    page_to = output_path("--output", arguments.output, inputs) if arguments.output else None
    with quiet():
        explainer = Explainer(arguments.ckpt_path)
        progress = len(texts) > arguments.batch_size and sys.stderr.isatty()
        made = {name: method_by_name(name, arguments, explainer.network) for name in methods}
        explanations = explainer.explain(texts, made, arguments.batch_size, progress, queries)
        alone = sum(item.neighbours == [] for item in explanations)
        if alone:
            warnings.warn(
                f"{alone:,} of {len(texts):,} texts have no neighbour within the cut-off; lafa shows base scores.",
                stacklevel=2,
            )
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
