"""The page of ``lightning explain``: prediction, and tokens coloured by every method, in one file without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_attn.ops.text import in_page
from lightning_attn.visualization.highlight import NEGATIVE, POSITIVE, highlight_html

if TYPE_CHECKING:  # what is drawn here
    from lightning_attn.attribution.lafa import NeighbourText
    from lightning_attn.explain import Explanation

#: What a method is called on the page, and what its attributions say.
TITLES = {
    "attention": ("Attention", "the weight that the network gave the token"),
    "gradient": ("Gradient x input", "how strongly the prediction reacts to the token, to first order"),
    "occlusion": ("Leave-one-out", "how much the prediction changes when the token is deleted"),
    "lafa": ("LAFA", "the token's own gradient, and that of similar words in similar training texts"),
    "raw_attention": (
        "Attention of the last layer",
        "what the first position takes from the token, mean over the heads",
    ),
    "rollout": ("Attention rollout", "attention multiplied through all layers"),
    "attention_gradient": ("Attention gradients", "how strongly the prediction reacts to attention on the token"),
    "attention_gradcam": ("Attention Grad-CAM", "attention of the last layer, each head weighted by its mean gradient"),
    "attcat": ("AttCAT", "input of every layer times its gradient, weighted by the attention that it receives"),
    "partial_lrp": ("Partial LRP", "relevance of the last layer's attention"),
    "full_lrp": ("LRP", "relevance of the token's embedding"),
    "transatt": ("TransAtt", "relevance times gradient of attention, multiplied through all layers"),
    "mask_lrp": ("Mask-LRP", "TransAtt with the relevance of important attention heads only"),
    "mask_lrp_released": ("Mask-LRP as released", "TransAtt with important heads, as the published code has it"),
    "attn_lrp": ("AttnLRP", "gradient x input with the derivatives of relevance"),
    "cp_lrp": ("CP-LRP", "gradient x input with the derivatives of relevance, attention held constant"),
}

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2430; --faint: #667080; --line: #dfe3e8;
  --bar: #8b98a9; --win: #2f6fdb; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --card: #1d2229; --ink: #e8ebef; --faint: #97a1ae;
  --line: #323943; --bar: #5f6b7a; --win: #6b9df2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 76em; margin: 0 auto; padding: 2em 1.2em 4em; }
h1 { font-size: 1.5em; margin: 0 0 .2em; }
.faint { color: var(--faint); font-size: .87em; overflow-wrap: anywhere; }
.controls { position: sticky; top: 0; background: var(--page); padding: .8em 0; display: flex; flex-wrap: wrap;
  gap: .4em 1.4em; align-items: center; z-index: 1; }
.controls label { cursor: pointer; }
.scale { display: inline-block; width: 7em; height: .8em; border-radius: .3em; vertical-align: middle; margin: 0 .4em; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .7em; padding: 1.1em 1.3em;
  margin: 0 0 1.2em; }
.verdict { display: flex; flex-wrap: wrap; gap: .5em 2.5em; align-items: flex-start; margin-bottom: .9em; }
.verdict h2 { font-size: 1.2em; margin: 0; min-width: 9em; overflow-wrap: anywhere; }
.classes { flex: 1 1 20em; display: grid; grid-template-columns: minmax(4em, auto) 1fr 3.6em; gap: .15em .8em;
  align-items: center; font-size: .9em; }
.classes > span { overflow-wrap: anywhere; }
.track { background: var(--line); border-radius: .4em; height: .7em; overflow: hidden; }
.fill { background: var(--bar); height: 100%; }
.fill.win { background: var(--win); }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.methods { display: grid; grid-template-columns: repeat(auto-fit, minmax(17em, 1fr)); gap: 1em 1.6em; }
.methods h3 { font-size: .87em; font-weight: 600; color: var(--faint); margin: 0 0 .3em; }
.tokens { line-height: 2; overflow-wrap: anywhere; }
.tokens span { border-radius: .25em; padding: .12em .18em; cursor: default; }
.tokens span.same { outline: 2px solid var(--ink); }
details { margin-top: .9em; } summary { cursor: pointer; }
details table { border-collapse: collapse; margin-top: .4em; }
details th { text-align: left; font-weight: 600; }
details td, details th { padding: .2em .9em .2em 0; vertical-align: top; overflow-wrap: anywhere; }
details .heads { border-collapse: separate; border-spacing: 2px; margin: .5em 0; font-size: .85em; }
details .heads td, details .heads th { min-width: 2.1em; height: 1.7em; padding: 0; overflow-wrap: normal;
  text-align: center; vertical-align: middle; }
details .heads th { font-weight: 400; color: var(--faint); padding: 0 .3em; }
details .heads td { border-radius: .25em; background: var(--line); }
details .heads td.important { background: var(--win); color: #fff; font-weight: 600; }
"""

# Switches methods on and off, and marks the token under the pointer under every method of its text.
_SCRIPT = """
document.querySelectorAll('.controls input').forEach(function (box) {
  box.addEventListener('change', function () {
    document.querySelectorAll('.methods > section').forEach(function (part) {
      if (part.dataset.method === box.value) part.hidden = !box.checked;
    });
  });
});
document.querySelectorAll('.methods').forEach(function (methods) {
  function mark(event, on) {
    if (!event.target.parentNode.classList.contains('tokens')) return;
    var place = Array.prototype.indexOf.call(event.target.parentNode.children, event.target);
    methods.querySelectorAll('.tokens').forEach(function (tokens) {
      if (tokens.children[place]) tokens.children[place].classList.toggle('same', on);
    });
  }
  methods.addEventListener('mouseover', function (event) { mark(event, true); });
  methods.addEventListener('mouseout', function (event) { mark(event, false); });
});
"""


def explain_page(explanations: Sequence[Explanation], source: str, heads: str = "") -> str:
    """A page to show to somebody: needs no network, follows the reader's light or dark scheme.

    Args:
        explanations: All explained by the same methods.
        source: What explained them, such as the path of the checkpoint; plain text.
        heads: HTML of :func:`head_map`; empty where no method chooses attention heads.

    Returns:
        A complete HTML document; everything in it that came from texts or class names is escaped.
    """
    methods = list(explanations[0].attributions) if explanations else []
    signed = any(value < 0 for item in explanations for values in item.attributions.values() for value in values)
    legend = _scale(POSITIVE, "little", "much") + (_scale(NEGATIVE, "little", "much, against it") if signed else "")
    switches = "\n".join(_switch(method) for method in methods)
    cards = "\n".join(_card(item) for item in explanations)
    count = "1 text" if len(explanations) == 1 else f"{len(explanations):,} texts"
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>What the classifier looked at</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><main>
<h1>What the classifier looked at</h1>
<div class="faint">{count}, explained by {in_page(source)}. The deeper the colour, the more the token counts; every
method is coloured relative to its own largest value in the text. Point at a token for its value.</div>
{heads}
<div class="controls">{switches}<span class="faint">{legend}</span></div>
{cards}
</main><script>{_SCRIPT}</script></body>
</html>
"""


def head_map(layers: Sequence[Sequence[int]], heads_per_layer: int, reasons: Mapping[str, Sequence[str]]) -> str:
    """A table of all attention heads in which the important ones stand out; pointing at one says why it is.

    Args:
        layers: Important attention heads of each layer, the lowest first; it is drawn below.
        heads_per_layer: How many there are.
        reasons: Why, by ``layer.head``, plain text; those without any are important because the file says so.

    Returns:
        HTML, escaped.
    """
    head = "".join(f'<th scope="col">{number}</th>' for number in range(heads_per_layer))
    rows = []
    for layer in reversed(range(len(layers))):
        cells = []
        for number in range(heads_per_layer):
            name = f"{layer}.{number}"
            if number in layers[layer]:
                why = ", ".join(reasons.get(name, [])) or "important"
                title = in_page(f"{name}: {why}")
                cells.append(f'<td class="important" title="{title}">{number}</td>')
            else:
                cells.append(f'<td title="{name}"></td>')
        rows.append(f'<tr><th scope="row">{layer}</th>{"".join(cells)}</tr>')
    count, total = sum(len(set(layer)) for layer in layers), len(layers) * heads_per_layer
    return (
        f'<details class="faint" open><summary>{count} of {total} attention heads are important; Mask-LRP follows '
        f'these alone</summary><table class="heads">{"".join(rows)}<tr><th scope="row">layer</th>{head}</tr></table>'
        "Layer 0 is the lowest. Point at an attention head to see why it is important.</details>"
    )


def _card(item: Explanation) -> str:
    ranked = sorted(item.probabilities.items(), key=lambda pair: -pair[1])
    classes = "\n".join(_bar(name, probability, name == item.prediction) for name, probability in ranked)
    methods = "\n".join(_method(method, item, values) for method, values in item.attributions.items())
    query = "" if item.query is None else f'<div class="faint">Query: {in_page(item.query)}</div>\n'
    return (
        f'<article><div class="verdict"><h2>{in_page(item.prediction)}</h2>\n'
        f'<div class="classes">{classes}</div></div>\n{query}<div class="methods">{methods}</div>'
        f"{_neighbours(item.neighbours)}</article>"
    )


def _neighbours(neighbours: Sequence[NeighbourText] | None) -> str:
    """The training texts that lent their importance, folded in."""
    if neighbours is None:
        return ""
    if not neighbours:
        return '<div class="faint">LAFA: no training text is near enough, so these are the text\'s own scores.</div>'
    rows = "\n".join(
        f'<tr><td class="number">{item.distance:.3g}</td><td>{in_page(item.prediction)}</td>'
        f"<td>{in_page(item.text)}</td></tr>"
        for item in neighbours
    )
    count = "1 training text" if len(neighbours) == 1 else f"{len(neighbours)} training texts"
    return (
        f'<details class="faint"><summary>LAFA borrowed from {count}</summary><table>'
        f"<tr><th>distance</th><th>taken for</th><th>text</th></tr>{rows}</table></details>"
    )


def _bar(name: str, probability: float, winner: bool) -> str:
    share = f"{100 * probability:.1f}"
    return (
        f'<span>{in_page(name)}</span><div class="track"><div class="fill{" win" if winner else ""}" '
        f'style="width:{share}%"></div></div><span class="number">{share} %</span>'
    )


def _method(method: str, item: Explanation, attributions: Sequence[float]) -> str:
    title, meaning = _title(method)
    sides = item.sides or []
    breaks = {place for place in range(1, len(sides)) if sides[place] != sides[place - 1]}  # each text a line
    return (
        f'<section data-method="{in_page(method)}"><h3 title="{in_page(meaning)}">{in_page(title)}</h3>'
        f'<div class="tokens">{highlight_html(item.tokens, attributions, breaks)}</div></section>'
    )


def _switch(method: str) -> str:
    title, meaning = _title(method)
    return (
        f'<label title="{in_page(meaning)}"><input type="checkbox" checked value="{in_page(method)}"> '
        f"{in_page(title)}</label>"
    )


def _title(method: str) -> tuple[str, str]:
    return TITLES.get(method, (method.replace("_", " "), ""))


def _scale(colour: tuple[int, int, int], low: str, high: str) -> str:
    red, green, blue = colour
    gradient = f"linear-gradient(90deg, rgba({red},{green},{blue},0), rgba({red},{green},{blue},.75))"
    return f'{low}<span class="scale" style="background:{gradient}"></span>{high} '
