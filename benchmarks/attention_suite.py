"""The experiments of "Attention is not Explanation" against what others use: ``python -m benchmarks.attention_suite``.

``--data DIR`` holds ``sst`` (and ``imdb`` for the memory). Networks are trained on SST for two epochs first, so that
there is something to explain. Every comparison begins with a check that both sides compute the same; then come ratios
within this run, medians of five, both sides in turn so that a busy machine slows both.

- Leave-one-out against captum (``benchmarks.leave_one_out``), one forward pass per position, interpreto's Occlusion and
  ferret's (``pip install -e '.[benchmarks]'`` in an environment of its own; without them it says so).
- 100 permutations against one ``classify`` an example and permutation.
- Adversarial attention against 500 steps of Adam on five adversaries, example by example.
- All experiments on the SST validation set, which should take less than 60 s.
- The memory of all experiments on the longest reviews of IMDB, which should stay below 4 GiB.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from pytorch_lightning import seed_everything
from torch import Tensor

from benchmarks import attention_peers as peers
from benchmarks import leave_one_out as captum
from benchmarks.fitting import timed_trainer
from lightning_attn.attribution import Occlusion
from lightning_attn.data import SSTDataModule, TextDataModule, WordProcessor
from lightning_attn.encoders import CNN, BiLSTM, TokenMLP
from lightning_attn.experiments import Random, Uniform, adversarial, agreement, counterfactual, permutation
from lightning_attn.networks import AttentionNetwork, PooledNetwork
from lightning_attn.perturbation.perturbations import Delete, Perturbation, Replace
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch

REPEATS = 5
SECTIONS = ("leave-one-out", "permutation", "adversarial", "suite", "memory")
ENCODERS = {"bilstm": BiLSTM, "cnn": CNN, "average": TokenMLP}
PEER_SENTENCES, ADVERSARIAL_SENTENCES, LONGEST_REVIEWS, OTHER_REVIEWS = 100, 16, 32, 96
SUITE_SECONDS, MEMORY_MIB = 60, 4096


def trained(name: str, folder: Path) -> tuple[AttentionNetwork, list[Batch]]:
    """A network after two epochs on SST without boundary tokens, and the batches of the validation set."""
    seed_everything(0, verbose=False)
    data = SSTDataModule(folder / "sst", processor=WordProcessor(boundaries=False), evaluation_batch_size=128)
    network = PooledNetwork(ENCODERS[name]())
    timed_trainer(max_epochs=2).fit(AttentionClassifier(network), data)
    return network.eval(), list(data.val_dataloader())


def in_turn(*functions: Callable[[], object]) -> list[float]:
    """Median seconds of each function, called one after the other, five times."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for function, column in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            column.append(time.perf_counter() - start)
    return [statistics.median(column) for column in seconds]


def single(batches: Sequence[Batch], most: int | None = None) -> list[Batch]:
    """Each example as a batch of its own, without padding; the first ``most`` of the data set."""
    rows = [batch.select(torch.tensor([row])) for batch in batches for row in range(len(batch))]
    rows = sorted(rows, key=lambda one: int(one.index))[:most]
    return [peers.cut(one) for one in rows]


def removed(network: AttentionNetwork, batch: Batch, perturbation: Perturbation) -> Tensor:
    """Drop of the predicted class's probability without each position, shape ``(B, L)``."""
    return Occlusion(perturbation, signed=True).attribute(network, batch)


def time_leave_one_out(name: str, network: AttentionNetwork, batches: list[Batch]) -> None:
    """Against captum and one pass per position on all sentences, against the other peers on the first 100."""
    captum.compare(name, captum.sentences(), REPEATS)
    sentences = single(batches)

    def ours(perturbation: Perturbation, part: Sequence[Batch]) -> list[Tensor]:
        return [removed(network, batch, perturbation) for batch in part]

    found = {
        int(i): row for batch in batches for i, row in zip(batch.index, removed(network, batch, Delete()), strict=True)
    }
    for batch, scores in zip(
        sentences[:PEER_SENTENCES], peers.by_position(network, sentences[:PEER_SENTENCES]), strict=True
    ):
        torch.testing.assert_close(found[int(batch.index)][: scores.numel()], scores, atol=1e-5, rtol=0)
    loop, mine = in_turn(lambda: peers.by_position(network, sentences), lambda: ours(Delete(), batches))
    print(f"leave-one-out, {name}: one pass per position {loop:.2f} s, ours {mine:.2f} s, ratio {loop / mine:.1f}x")
    few = sentences[:PEER_SENTENCES]
    together = peers.together(few)
    for title, peer, perturbation in (
        ("interpreto Occlusion", peers.by_interpreto, Replace()),
        ("ferret TauLOO", peers.by_ferret, Delete()),
    ):
        try:
            theirs = peer(network, few)
        except Exception as error:  # whatever keeps a peer from running is what there is to say of it
            print(f"leave-one-out, {name}: {title} does not run: {type(error).__name__}: {str(error)[:200]}")
            continue
        for row, scores in zip(removed(network, together, perturbation), theirs, strict=True):
            torch.testing.assert_close(row[: scores.numel()], scores.float(), atol=1e-4, rtol=0)
        seconds, mine = in_turn(
            lambda peer=peer: peer(network, few), lambda perturbation=perturbation: ours(perturbation, [together])
        )
        print(
            f"leave-one-out, {name}, {len(few)} sentences: {title} {seconds:.2f} s, ours {mine:.3f} s, "
            f"ratio {seconds / mine:.1f}x"
        )


def time_permutation(name: str, network: AttentionNetwork, batches: list[Batch]) -> None:
    """100 shuffles against the loop."""
    sentences = single(batches)

    def ours() -> Tensor:
        return torch.cat([permutation(network, batch).change for batch in batches])

    index = torch.cat([batch.index for batch in batches])
    mine = dict(zip(index.tolist(), ours().tolist(), strict=True))
    theirs = peers.permutation_loop(network, sentences, 100)
    off = torch.tensor([mine[int(batch.index)] for batch in sentences]) - theirs
    known = off[~off.isnan()]  # shuffles are random, so medians of 100 agree on average and not one by one
    assert known.mean().abs() < 0.005, f"mean difference {known.mean():.4f}"
    loop, seconds = in_turn(lambda: peers.permutation_loop(network, sentences, 100), ours)
    print(
        f"permutation, {name}, {len(sentences)} sentences x 100: loop {loop:.2f} s, ours {seconds:.3f} s, "
        f"ratio {loop / seconds:.1f}x (mean of the medians differs by {known.mean():+.4f})"
    )


def time_adversarial(name: str, network: AttentionNetwork, batches: list[Batch]) -> None:
    """The faster search against the published one, example by example."""
    sentences = single(batches, ADVERSARIAL_SENTENCES)
    together = peers.together(sentences)
    theirs = peers.adversarial_loop(network, sentences, 5, 500)
    mine = adversarial(network, together)
    assert mine.change.nan_to_num().max() <= 0.05 + 1e-6
    assert mine.jsd.nanmean() >= theirs.nanmean(), f"{mine.jsd.nanmean():.4f} below {theirs.nanmean():.4f}"
    loop, seconds = in_turn(
        lambda: peers.adversarial_loop(network, sentences, 5, 500), lambda: adversarial(network, together)
    )
    print(
        f"adversarial, {name}, {len(sentences)} sentences, 5 x 500 steps: loop {loop:.2f} s and mean maximum JSD "
        f"{theirs.nanmean():.4f}, ours {seconds:.3f} s and {mine.jsd.nanmean():.4f}, ratio {loop / seconds:.1f}x"
    )


def whole_suite(network: AttentionNetwork, batch: Batch) -> None:
    """All four experiments on a batch."""
    agreement(network, batch)
    permutation(network, batch)
    adversarial(network, batch)
    for source in (Uniform(), Random()):
        counterfactual(network, batch, source)


def time_suite(name: str, network: AttentionNetwork, batches: list[Batch]) -> None:
    """Seconds of everything on the validation set."""
    (seconds,) = in_turn(lambda: [whole_suite(network, batch) for batch in batches])
    count = sum(map(len, batches))
    print(f"all experiments, {name}, {count} sentences: {seconds:.1f} s (at most {SUITE_SECONDS})")
    assert seconds < SUITE_SECONDS


def measure_memory(folder: Path) -> None:
    """Peak resident memory on the longest reviews, and that more reviews do not add to it.

    An experiment keeps a few numbers an example, and everything else is bounded by the token budget. So the peak is
    that of the largest batch, however many batches follow; the 25,000 training reviews are all open meanwhile.
    """
    data = TextDataModule(folder / "imdb", processor=WordProcessor(min_frequency=5), val_share=0.0)
    data.prepare_data()
    data.setup()
    dataset = data.dataset("train")
    network = PooledNetwork(BiLSTM()).build(data.schema).eval()
    by_length = sorted(range(len(dataset)), key=lambda row: -int(dataset.lengths[row]))
    start = time.perf_counter()
    whole_suite(network, dataset[by_length[:LONGEST_REVIEWS]])
    first = peak_mib()
    step = len(by_length) // OTHER_REVIEWS
    others = by_length[LONGEST_REVIEWS::step]
    for position in range(0, len(others), LONGEST_REVIEWS):
        whole_suite(network, dataset[others[position : position + LONGEST_REVIEWS]])
    last = peak_mib()
    print(
        f"memory, bilstm, {len(dataset):,} reviews open: peak {first:,.0f} MiB after all experiments on the "
        f"{LONGEST_REVIEWS} longest ({int(dataset.lengths[by_length[0]])} tokens), {last:,.0f} MiB after {len(others)} "
        f"more of all lengths (at most {MEMORY_MIB:,}); {time.perf_counter() - start:.0f} s"
    )
    assert last < MEMORY_MIB


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: list[str] | None = None) -> None:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--encoders", nargs="+", choices=tuple(ENCODERS), default=tuple(ENCODERS))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    os.environ["LIGHTNING_ATTN_DATA"] = str(chosen.data)  # where benchmarks.leave_one_out finds the sentences
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if "memory" in chosen.sections:  # first: the peak of a process never falls
        measure_memory(chosen.data)
    timings = {
        "leave-one-out": time_leave_one_out,
        "permutation": time_permutation,
        "adversarial": time_adversarial,
        "suite": time_suite,
    }
    for name in chosen.encoders if set(timings) & set(chosen.sections) else ():
        network, batches = trained(name, chosen.data)
        for section, function in timings.items():
            if section in chosen.sections:
                function(name, network, batches)


if __name__ == "__main__":
    main()
