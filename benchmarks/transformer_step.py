"""A training step of a transformer: ``python -m benchmarks.transformer_step --minilm FOLDER`` prints ratios.

The plain Hugging Face model in a bare loop, with its eager and with its fused (sdpa) attention, against the Trainer
with `TransformerNetwork` under each mitigation: random batches, AdamW, all parameters. Parity first: without dropout
the losses and the gradients of the plain model and of ours are the same. Without ``--minilm`` a model of its shape with
random weights.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.fitting import fit_steps
from benchmarks.lrp import batch_of, model_of
from lightning_attn.mitigations import (
    Compose,
    InstanceWeighting,
    LeakagePenalty,
    Mitigation,
    NoMitigation,
    RandomMixing,
    RandomPretraining,
)
from lightning_attn.networks import TransformerNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema

REPEATS, EAGER_TARGET, FUSED_TARGET = 3, 1.25, 1.02
#: Random pretraining here never ends, and weighting begins at once: the steps that cost most.
MITIGATIONS: dict[str, Callable[[], Mitigation]] = {
    "none": NoMitigation,
    "random pretraining": lambda: RandomPretraining(epochs=10**6),
    "instance weighting": lambda: InstanceWeighting(warmup_steps=0),
    "mixing and penalty": lambda: Compose([RandomMixing(), LeakagePenalty()]),
}


def optimiser_of(parameters: Any) -> torch.optim.Optimizer:
    """The same for both sides."""
    return torch.optim.AdamW(parameters, lr=1e-5, fused=True)


def plain(model: Any, batches: list[Batch], attention: str) -> None:
    """The steps of a bare loop."""
    model.set_attn_implementation(attention)
    optimiser = optimiser_of(model.parameters())
    for batch in batches:
        optimiser.zero_grad()
        logits = model(input_ids=batch.inputs, attention_mask=batch.valid.long()).logits
        F.cross_entropy(logits, batch.target).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


def ours(network: TransformerNetwork, batches: list[Batch], mitigation: Mitigation) -> None:
    """The same steps in the Trainer."""
    fit_steps(AttentionClassifier(network, mitigation, optimizer=optimiser_of), batches, clip=1.0)


def check(model: Any, network: TransformerNetwork, batch: Batch) -> None:
    """Assert that plain model and network have the same loss and gradients."""
    found = []
    for logits in (
        lambda: model(input_ids=batch.inputs, attention_mask=batch.valid.long()).logits,
        lambda: network(batch).logits,
    ):
        model.zero_grad()
        loss = F.cross_entropy(logits(), batch.target)
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (expected, theirs), (loss, gradients) = found
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    for one, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 + 1e-3 * float(other.abs().max()), rtol=0)


def compare(minilm: str | None, lengths: list[int], count: int, repeats: int) -> None:
    """Print the ratios for batches of texts of such lengths."""
    model = model_of(minilm)
    size = model.config.vocab_size
    batches = [batch_of(lengths, size) for _ in range(count)]
    network = TransformerNetwork.from_model(model, DataSchema(num_classes=2, vocabulary_size=size))
    check(model, network.eval(), batches[0])
    network.train()
    arms: dict[str, Callable[[], None]] = {
        "eager": lambda: plain(model, batches, "eager"),
        "sdpa": lambda: plain(model, batches, "sdpa"),
    }
    for name, make in MITIGATIONS.items():
        arms[name] = lambda make=make: ours(network, batches, make())  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(repeats + 1):
        for name, run in arms.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    title = f"{len(lengths)} texts of {sum(lengths) / len(lengths):.0f} tokens"
    print(f"{title}: same loss and gradients; eager {1e3 * statistics.median(times['eager']) / count:.0f} ms per step")
    for name in MITIGATIONS:
        over = {
            plain: statistics.median(a / b for a, b in zip(times[name], times[plain], strict=True))
            for plain in ("eager", "sdpa")
        }
        missed = "" if over["eager"] <= EAGER_TARGET else ", missed"
        line = (
            f"{title}, {name}: {over['eager']:.2f} of eager (target {EAGER_TARGET}{missed}), {over['sdpa']:.2f} of sdpa"
        )
        if name == "none":
            line += f" (target {FUSED_TARGET}{'' if over['sdpa'] <= FUSED_TARGET else ', missed'})"
        print(line, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Print ratios for short and for longer texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", help="folder or Hub name; None takes random weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--steps", type=int, default=16, help="in a run (default: %(default)s)")
    parser.add_argument("--lengths", choices=["short", "long", "both"], default="both")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if chosen.lengths != "long":
        compare(chosen.minilm, [24, 20, 28, 16] * 4, chosen.steps, chosen.repeats)
    if chosen.lengths != "short":
        compare(chosen.minilm, [128, 120, 128, 112], chosen.steps, chosen.repeats)


if __name__ == "__main__":
    main()
