"""Speed of relevance and of the sweep on a transformer: ``python -m benchmarks.lrp --minilm FOLDER`` prints ratios.

Each LRP method against one gradient pass of the plain Hugging Face model, and the sweep of comprehensiveness,
sufficiency, AOPC and log-odds (preset ``ours``) against the plain model reading the whole texts, in tokens per second.
Parity first: the same gradients; the same scores alone and in a padded batch; the same probabilities as the plain model
for each shortened text. Without ``--minilm`` a model of its shape with random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertConfig

from lightning_attn.attribution import CPLRP, AttnLRP, Attribution, FullLRP, MaskLRP, PartialLRP, TransAtt
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.metrics import Settings, measure
from lightning_attn.metrics.presets import PRESETS, Erasure
from lightning_attn.networks import TransformerNetwork
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.types import Batch, DataSchema

REPEATS = 5
LRP_TARGET, SWEEP_TARGET = 1.5, 0.9
MEASURES = ("comprehensiveness", "sufficiency", "aopc", "log_odds")
NAMES = [f"faithfulness/{name}" for name in MEASURES]
METHODS: Mapping[str, Callable[[TransformerNetwork], Attribution]] = {
    "partial LRP": lambda network: PartialLRP(),
    "full LRP": lambda network: FullLRP(),
    "TransAtt": lambda network: TransAtt(),
    "Mask-LRP, half of the attention heads": lambda network: MaskLRP(
        [list(range(network.heads_per_layer // 2))] * network.depth
    ),
    "gradient-form LRP": lambda network: AttnLRP(),
    "gradient-form LRP, weights fixed": lambda network: CPLRP(),
}


def model_of(minilm: str | None) -> Any:
    """The plain model, in evaluation mode."""
    torch.manual_seed(0)
    if minilm is not None:
        return AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=2, weights_only=True).eval()
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    return AutoModelForSequenceClassification.from_config(BertConfig(num_labels=2, **shape)).eval()


def batch_of(lengths: list[int], vocabulary: int) -> Batch:
    """Random tokens between two special ones."""
    generator = torch.Generator().manual_seed(0)
    width, count = max(lengths), torch.tensor(lengths)[:, None]
    place = torch.arange(width)
    valid = place < count
    ids = torch.randint(min(1000, vocabulary // 2), vocabulary, (len(lengths), width), generator=generator)
    special = valid & ((place == 0) | (place == count - 1))
    row = torch.arange(len(lengths))
    return Batch(ids.masked_fill(~valid, 0), valid, special, row % 2, row)


def plain_gradient(model: Any, batch: Batch, target: Tensor) -> Tensor:
    """Gradient of the explained probability by the word embeddings, shape ``(B, L, E)``."""
    embeddings = model.get_input_embeddings()(batch.inputs).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings, attention_mask=batch.valid.long()).logits
    explained = logits.softmax(dim=-1).gather(1, target[:, None]).sum()
    return torch.autograd.grad(explained, embeddings)[0]


def plain_logits(model: Any, batch: Batch) -> Tensor:
    """One reading, shape ``(B, C)``."""
    with torch.no_grad():
        return model(input_ids=batch.inputs, attention_mask=batch.valid.long()).logits  # type: ignore[no-any-return]


def requests_of(batch: Batch, scores: Tensor) -> dict[str, Tensor]:
    """What the preset ``ours`` asks of the sweep, by measure, shape ``(B, K, L)``."""
    erasure = Erasure(PRESETS["ours"], batch, scores)
    return {name: erasure.request(name) for name in MEASURES}


def tokens_read(batch: Batch, requests: Mapping[str, Tensor]) -> int:
    """Tokens of all distinct shortened texts; the whole texts, which are read in any case, left out."""
    keep = torch.cat(list(requests.values()), dim=1) & batch.valid[:, None]
    total = 0
    for row, valid in zip(keep, batch.valid, strict=True):
        different = row.unique(dim=0)
        total += int(different[(different != valid).any(dim=1)].sum())
    return total


def check(model: Any, network: TransformerNetwork, batch: Batch, target: Tensor, scores: Tensor) -> None:
    """Assert that both sides compute the same."""
    ours = embedding_gradient(network, batch, target, attention_fixed=False).gradient
    theirs = plain_gradient(model, batch, target)
    difference = float((ours - theirs)[batch.valid].abs().max() / theirs.abs().max())
    assert difference < 1e-3, f"gradients differ by {difference}"
    shortest = int(batch.valid.sum(dim=1).argmin())
    alone = batch.select(torch.tensor([shortest])).shortened(int(batch.valid[shortest].sum()))
    for name, make in METHODS.items():
        method = make(network)
        among = method.attribute(network, batch, target)[shortest, : alone.inputs.shape[1]]
        one = method.attribute(network, alone, target[shortest, None])[0]
        difference = float((among - one).abs().max() / one.abs().max())
        assert difference < 1e-3, f"{name} differs by {difference} in a padded batch"
    requests = requests_of(batch, scores)
    with torch.no_grad():
        full = network(batch).logits.softmax(dim=-1)
        found = sweep(network, batch, requests, full=full)
    for name, keep in requests.items():
        for variant in (0, keep.shape[1] - 1):
            left = batch.inputs[0][keep[0, variant] & batch.valid[0]][None]
            with torch.no_grad():
                expected = model(input_ids=left).logits.softmax(dim=-1)[0]
            torch.testing.assert_close(found[name][0, variant], expected, atol=1e-4, rtol=1e-3)


def ratios(one: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median of seconds of ``one`` over those of ``other``, taken in turn, and median seconds of ``other``."""
    one(), other()
    found, seconds = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        other()
        middle = time.perf_counter()
        one()
        end = time.perf_counter()
        found.append((end - middle) / (middle - start))
        seconds.append(middle - start)
    return statistics.median(found), statistics.median(seconds)


def compare(model: Any, network: TransformerNetwork, batch: Batch, title: str, repeats: int) -> dict[str, float]:
    """Print a line per method, and one for the sweep; by name, the ratios."""
    target = plain_logits(model, batch).argmax(dim=-1)
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(batch.inputs.shape, generator=generator).masked_fill(~batch.inner, 0.0)
    check(model, network, batch, target, scores)
    found = {}
    for name, make in METHODS.items():
        method = make(network)
        ratio, seconds = ratios(
            lambda method=method: method.attribute(network, batch, target),  # type: ignore[misc]
            lambda: plain_gradient(model, batch, target),
            repeats,
        )
        missed = "" if ratio <= LRP_TARGET else ", missed"
        print(
            f"{title}, {name}: same alone and padded; gradient pass {seconds * 1e3:.0f} ms, ratio {ratio:.2f} "
            f"(target {LRP_TARGET}{missed})",
            flush=True,
        )
        found[name] = ratio
    read = tokens_read(batch, requests_of(batch, scores)) + int(batch.valid.sum())
    ratio, seconds = ratios(
        lambda: measure(network, batch, NAMES, Settings(), scores), lambda: plain_logits(model, batch), repeats
    )
    raw = int(batch.valid.sum()) / seconds
    share = read / (ratio * seconds) / raw
    missed = "" if share >= SWEEP_TARGET else ", missed"
    print(
        f"{title}, sweep of {read:,} tokens: same probabilities; plain model {raw:,.0f} tokens/s, "
        f"sweep {share * raw:,.0f}, ratio {share:.2f} (target {SWEEP_TARGET}{missed})",
        flush=True,
    )
    return found | {"sweep": share}


def main(arguments: list[str] | None = None) -> None:
    """Print ratios for short and for long texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", help="folder or Hub name; None takes random weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--short_only", action="store_true", help="leave the long texts out")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    model = model_of(chosen.minilm)
    size = model.config.vocab_size
    network = TransformerNetwork.from_model(model, DataSchema(num_classes=2, vocabulary_size=size)).eval()
    compare(model, network, batch_of([24, 20, 28, 16] * 4, size), "16 texts of 22 tokens", chosen.repeats)
    if not chosen.short_only:
        compare(model, network, batch_of([256, 240], size), "2 texts of 248 tokens", chosen.repeats)


if __name__ == "__main__":
    main()
