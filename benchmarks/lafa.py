"""Does borrowing from similar texts help? ``python -m benchmarks.lafa --data DIR`` writes ``results/lafa.md``.

DIR holds ``sst/`` and ``ade_corpus_v2/``. LAFA with each kernel stands beside its base scores, SmoothGrad, integrated
gradients and SHAP, and beside the controls that its authors left out: the mean importance of a word over all training
texts, random neighbours, neighbours of other classes, and no borrowing. Everything is tuned on validation texts alone.
``--minilm FOLDER`` adds a fine-tuned MiniLM-L6 (a folder with config.json, model.safetensors and tokenizer.json).
Trained networks and indices are kept in ``--work``; finished cells in ``results/lafa.jsonl``.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import seed_everything
from torch import Tensor

from benchmarks.cells import Cell, finished, run_cells
from benchmarks.fitting import fit_best
from benchmarks.lafa_page import page
from benchmarks.lafa_tuning import (
    AGREEMENT,
    NEAREST,
    OTHER,
    RANDOM,
    Validation,
    best_by_kernel,
    best_lexicon,
    best_of,
    combined,
    settings,
)
from lightning_attn.attribution import Attribution, Lexicon, NeighbourShap, get
from lightning_attn.attribution.lafa import Nearest, NeighbourIndex
from lightning_attn.data import ADEDataModule, CorpusDataModule, HuggingFaceProcessor, SSTDataModule
from lightning_attn.encoders import BiLSTM, PretrainedEncoder
from lightning_attn.metrics.functional import comprehensiveness, sufficiency
from lightning_attn.metrics.functional.erasure import explained
from lightning_attn.networks import PooledNetwork
from lightning_attn.perturbation.budget import Fractions
from lightning_attn.perturbation.sweep import sweep
from lightning_attn.perturbation.variants import top_k_kept, top_k_removed
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch

RESULTS = Path(__file__).parents[1] / "results"
RESAMPLES = 2000
LAYERS = {"bilstm": ("keys", "pooled"), "minilm": ("hidden:4", "keys")}
BASES = {
    "bilstm": ("simple_gradient", "input_gradient", "smooth_gradient"),
    "minilm": ("simple_gradient", "input_gradient"),
}
NOISES = (0.05, 0.15, 0.3)


def cells(minilm: bool) -> list[Cell]:
    """Each task on each model; all seeds of a cell are measured on the same texts."""
    bilstm = {"model": "bilstm", "rate": 1e-3, "seeds": 3, "epochs": 5, "validation": 150, "erased": 300, "samples": 15}
    pretrained = {
        "model": "minilm",
        "rate": 1e-4,
        "seeds": 1,
        "epochs": 2,
        "validation": 60,
        "erased": 100,
        "samples": 8,
    }
    wanted = [
        {"task": "sst2", "test": 1000, **bilstm},
        {"task": "sst5", "test": 1000, **bilstm},
        {"task": "ade", "test": 1000, **bilstm},
    ]
    if minilm:
        wanted += [{"task": "sst2", "test": 300, **pretrained}, {"task": "sst5", "test": 300, **pretrained}]
    return wanted


def data_of(cell: Cell, data: str, minilm: str | None) -> CorpusDataModule:
    """The data module of a cell, set up."""
    processor = HuggingFaceProcessor(str(minilm), max_length=128) if cell["model"] == "minilm" else None
    made: CorpusDataModule
    if cell["task"] == "ade":
        made = ADEDataModule(f"{data}/ade_corpus_v2", processor=processor)
    else:
        classes: Any = "binary" if cell["task"] == "sst2" else "five"
        made = SSTDataModule(f"{data}/sst", classes, evidence="graded", processor=processor)
    made.prepare_data()
    made.setup()
    return made


def trained(
    cell: Cell, seed: int, texts: CorpusDataModule, work: Path, minilm: str | None
) -> tuple[PooledNetwork, float]:
    """A network, from ``work`` if it is there, and its test accuracy."""
    seed_everything(seed, verbose=False)
    bilstm = cell["model"] == "bilstm"
    network = PooledNetwork(BiLSTM(dropout=0.3) if bilstm else PretrainedEncoder(str(minilm)))
    file = work / f"seed{seed}.pt"
    if file.is_file():
        network.build(texts.schema)
        kept = torch.load(file, weights_only=True)
        network.load_state_dict(kept["weights"])
        return network.eval(), kept["accuracy"]
    module = AttentionClassifier(network, optimizer=lambda p: torch.optim.AdamW(p, lr=cell["rate"], weight_decay=1e-5))
    trainer = fit_best(module, texts, cell["epochs"], work / f"fit{seed}", clip=None if bilstm else 1.0)
    tested = trainer.test(module, texts, verbose=False)[0]
    accuracy = float(tested["test/accuracy"])
    network = network.cpu().eval()
    torch.save({"weights": network.state_dict(), "accuracy": accuracy}, file)
    return network, accuracy


def batches_of(texts: CorpusDataModule, split: str, count: int, positives: bool) -> list[Batch]:
    """The first texts of a split that have evidence, in batches of about equal lengths, in no order."""
    dataset = texts.dataset(split)
    assert dataset.evidence is not None
    rows = np.flatnonzero(dataset.labels == 1) if positives else np.arange(len(dataset))
    rows = rows[:count]
    rows = rows[np.argsort(dataset.lengths[rows], kind="stable")]
    firsts = np.random.default_rng(0).permutation(np.arange(0, len(rows), 32))
    return [dataset[rows[first : first + 32].tolist()] for first in firsts]


def methods_of(
    cell: Cell, network: PooledNetwork, indices: Mapping[tuple[str, str], NeighbourIndex], validation: Validation
) -> tuple[dict[str, Attribution], dict[str, str]]:
    """Every method, tuned, and how; ``LAFA`` is the one of the best kernel."""
    samples = cell["samples"]
    found: dict[str, Attribution] = {
        name: get(name) for name in ("random", "attention", "simple_gradient", "input_gradient")
    }
    chosen: dict[str, str] = {}
    smooth = best_of(
        validation, {f"noise {noise}": get("smooth_gradient", noise=noise, samples=samples) for noise in NOISES}
    )
    found["SmoothGrad"], chosen["SmoothGrad"] = smooth.method, smooth.described
    found["integrated gradients"] = get("squared_integrated_gradients", steps=samples)
    found["SHAP, zero"] = get("gradient_shap", samples=samples)
    any_index = next(iter(indices.values()))
    found["SHAP, neighbours"] = NeighbourShap(any_index, Nearest(10, None), samples)
    by_kernel = best_by_kernel(settings(validation, indices, NEAREST))
    for kernel, setting in by_kernel.items():
        found[f"LAFA, {kernel}"], chosen[f"LAFA, {kernel}"] = setting.method, setting.described
    best = max(by_kernel.values(), key=lambda setting: setting.value)
    found["LAFA"], chosen["LAFA"] = best.method, best.described
    first_layer = next(layer for layer, _ in indices)
    of_one_layer = {key: index for key, index in indices.items() if key[0] == first_layer}
    for name, selections in (("LAFA, random texts", RANDOM), ("LAFA, other classes", OTHER)):
        # Random texts are no nearer in one layer than in another.
        kinds = best_by_kernel(settings(validation, of_one_layer if selections is RANDOM else indices, selections))
        control = max(kinds.values(), key=lambda setting: setting.value)
        found[name], chosen[name] = control.method, control.described
    assert hasattr(best.method, "base")
    found["LAFA, lambda 0"] = best.method.base
    lexicon = best_lexicon(validation, indices)
    found["base + lexicon"], chosen["base + lexicon"] = lexicon.method, lexicon.described
    alone = best_of(validation, {base: _LexiconAlone(index) for (_, base), index in of_one_layer.items()})
    found["lexicon alone"], chosen["lexicon alone"] = alone.method, alone.described
    return found, chosen


class _LexiconAlone(Lexicon):
    """The mean importance of the word over the training texts, and nothing of the text itself."""

    def score(self, network: Any, batch: Batch, target: Tensor | None) -> Tensor:
        return self.borrow(network, batch, target).lent


def erased(network: PooledNetwork, batch: Batch, scores: Tensor) -> dict[str, Tensor]:
    """Comprehensiveness and sufficiency of each text."""
    counts = Fractions().counts(batch)
    with torch.no_grad():
        full = network.schema.probabilities(network(batch).logits)
    target = full.argmax(dim=-1)
    requests = {"without": top_k_removed(scores, batch, counts), "only": top_k_kept(scores, batch, counts)}
    found = {name: explained(each, target) for name, each in sweep(network, batch, requests, full=full).items()}
    whole = full.gather(1, target[:, None]).squeeze(1)
    return {
        "comprehensiveness": comprehensiveness(whole, found["without"]),
        "sufficiency": sufficiency(whole, found["only"]),
    }


def measured(cell: Cell, seed: int, texts: CorpusDataModule, work: Path, minilm: str | None) -> dict[str, Any]:
    """Per-text figures of every method on one network."""
    network, accuracy = trained(cell, seed, texts, work, minilm)
    model, positives = cell["model"], cell["task"] == "ade"
    tuned_on = "auroc" if positives else "pearson"
    validation = Validation(network, batches_of(texts, "val", cell["validation"], positives), AGREEMENT[tuned_on])
    folder = work / f"index{seed}"
    smooth = {"samples": 10}
    bases = {
        base: NeighbourIndex.build(
            network, texts, folder / base, base=base, options=smooth if base == "smooth_gradient" else None
        )
        for base in BASES[model]
    }
    layers = {
        layer: NeighbourIndex.build(network, texts, folder / layer.replace(":", ""), layer=layer, base="random")
        for layer in LAYERS[model]
    }
    indices = {(layer, base): combined(layers[layer], bases[base]) for layer in layers for base in bases}
    methods, chosen = methods_of(cell, network, indices, validation)
    values: dict[str, dict[str, list[Tensor]]] = {}
    done = 0
    for batch in batches_of(texts, "test", cell["test"], positives):
        assert batch.evidence is not None
        for name, method in methods.items():
            scores = method.attribute(network, batch)
            figures = {metric: AGREEMENT[metric](scores, batch.evidence, batch.inner) for metric in AGREEMENT}
            if done < cell["erased"]:
                figures |= erased(network, batch, scores)
            for metric, each in figures.items():
                values.setdefault(metric, {}).setdefault(name, []).append(each.double())
        done += len(batch)
    table = {
        metric: {name: torch.cat(parts).numpy() for name, parts in by_method.items()}
        for metric, by_method in values.items()
    }
    return {"accuracy": accuracy, "chosen": chosen, "values": table}


def interval(values: np.ndarray[Any, Any], generator: np.random.Generator) -> list[float]:
    """Mean over texts, texts where it is undefined left out, with its 95 % bootstrap interval over texts."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        return [float("nan")] * 3
    drawn = generator.integers(len(kept), size=(RESAMPLES, len(kept)))
    low, high = np.quantile(kept[drawn].mean(axis=1), [0.025, 0.975])
    return [float(kept.mean()), float(low), float(high)]


def compute(cell: Cell, data: str, work: str, minilm: str | None) -> dict[str, Any]:
    """Train, tune and measure one cell; figures are means over its networks, intervals over texts."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    folder = Path(work) / f"{cell['task']}-{cell['model']}"
    folder.mkdir(parents=True, exist_ok=True)
    texts = data_of(cell, data, minilm)
    runs = [measured(cell, seed, texts, folder, minilm) for seed in range(cell["seeds"])]
    result: dict[str, Any] = {
        "accuracy": [run["accuracy"] for run in runs],
        "chosen": [run["chosen"] for run in runs],
        "figures": {},
        "differences": {},
        "seeds": {},
    }
    generator = np.random.default_rng(0)
    for metric, by_method in runs[0]["values"].items():
        # One figure per text: the mean over networks, so that the interval is over texts.
        means = {name: np.mean([run["values"][metric][name] for run in runs], axis=0) for name in by_method}
        result["figures"][metric] = {name: interval(values, generator) for name, values in means.items()}
        result["differences"][metric] = {
            name: interval(means["LAFA"] - values, generator) for name, values in means.items() if name != "LAFA"
        }
        result["seeds"][metric] = {
            name: [float(np.nanmean(run["values"][metric][name])) for run in runs] for name in by_method
        }
    return result


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with sst/ and ade_corpus_v2/")
    parser.add_argument("--minilm", help="folder of MiniLM-L6; without it, the BiLSTM alone")
    parser.add_argument(
        "--work", default="runs/lafa", help="where networks and indices are kept (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=1, help="cells at a time")
    chosen = parser.parse_args(arguments)
    wanted = cells(chosen.minilm is not None)
    function = partial(compute, data=chosen.data, work=chosen.work, minilm=chosen.minilm)
    run_cells(wanted, function, RESULTS / "lafa.jsonl", chosen.workers)
    discussion = RESULTS / "lafa_discussion.md"
    (RESULTS / "lafa.md").write_text(
        page(finished(RESULTS / "lafa.jsonl"), wanted, discussion.read_text() if discussion.exists() else "")
    )


if __name__ == "__main__":
    main()
