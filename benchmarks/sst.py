"""SST with and without mitigations: ``python -m benchmarks.sst --data DIR`` writes ``results/sst.md``.

Part 1 repeats the set-up of Jain and Wallace 2019 on three encoders and two attentions, beside the figures in the
result files of their repository. Part 2 compares the mitigations on a BiLSTM with local values. Part 3 asks what the
agreement in part 1 depends on. Finished cells are kept in ``results/sst.jsonl``; delete a line to compute it again.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from benchmarks.cells import Cell, finished, key, markdown_table, mean_and_deviation, paired_difference, run_cells
from benchmarks.fitting import trainer_of
from lightning_attn.attention import AdditiveAttention, DotAttention
from lightning_attn.callbacks import FaithfulnessCallback
from lightning_attn.callbacks.checkpoint import BestAndLastCheckpoint
from lightning_attn.data import SSTDataModule
from lightning_attn.encoders import CNN, BiLSTM, TokenMLP
from lightning_attn.mitigations import Compose, InstanceWeighting, Mitigation, NoMitigation, RandomPretraining
from lightning_attn.networks import PooledNetwork
from lightning_attn.tasks import AttentionClassifier

RESULTS = Path(__file__).parents[1] / "results"
ENCODERS = ("bilstm", "cnn", "average")
ATTENTIONS = ("additive", "dot")
VARIANTS = (("small", "last"), ("unit", "best"), ("unit", "last"))  # start of the word vectors, epoch that is measured
ARMS = ("none", "random_pretraining", "instance_weighting", "both")
EPOCHS = {1: 8, 2: 6, 3: 8}  # by part; 8 are published
PRETRAINING_EPOCHS = 2
DROPOUT = {1: 0.0, 2: 0.3, 3: 0.0}  # by part; 0 is published, 0.3 was best for `none` on validation

# Result files of the authors' repository (successar/AttentionExplanation), pretrained fastText vectors:
# accuracy, tau attention-gradient, tau attention-LOO.
PUBLISHED = {
    ("bilstm", "additive"): (0.808, 0.351, 0.291),
    ("average", "additive"): (0.807, 0.606, 0.623),
    ("cnn", "additive"): (0.823, 0.477, 0.352),
    ("bilstm", "dot"): (0.823, 0.073, 0.064),
    ("average", "dot"): (0.799, 0.347, 0.314),
    ("cnn", "dot"): (0.812, 0.240, 0.215),
}
COLUMNS = {
    "accuracy": "test/accuracy",
    "tau gradient": "test/faithfulness/kendall_gradient",
    "tau LOO": "test/faithfulness/kendall_loo",
    "comprehensiveness": "test/faithfulness/comprehensiveness",
    "sufficiency": "test/faithfulness/sufficiency",
    "AUPRC": "test/plausibility/auprc",
    "leaked bits": "test/shortcut/leaked_bits",
}


def cells() -> list[Cell]:
    """Every training of both parts."""
    published = [
        {"part": 1, "encoder": encoder, "attention": attention, "values": "contextual", "arm": "none", "seed": seed}
        for encoder in ENCODERS
        for attention in ATTENTIONS
        for seed in range(3)
    ]
    mitigated = [
        {"part": 2, "encoder": "bilstm", "attention": "additive", "values": "local", "arm": arm, "seed": seed}
        for arm in ARMS
        for seed in range(5)
    ]
    what_tau_depends_on = [
        {"part": 3, "encoder": "bilstm", "attention": "additive", "values": "contextual", "arm": "none", "seed": seed}
        | {"start": start, "epoch": epoch}
        for start, epoch in VARIANTS
        for seed in range(3)
    ]
    return [cell | {"epochs": EPOCHS[cell["part"]]} for cell in mitigated + published + what_tau_depends_on]


class UnitWordVectors(Callback):
    """Starts the word vectors at a standard deviation of 1, as PyTorch does, in place of 0.1."""

    def on_fit_start(self, trainer: Trainer, module: AttentionClassifier) -> None:
        with torch.no_grad():
            module.network.encoder.embedding.weight.mul_(10)  # type: ignore[union-attr, operator]


def train(cell: Cell, data: str) -> dict[str, float]:
    """Train one network, take the epoch with the best validation AUROC of its last phase, measure it on test."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seed_everything(cell["seed"], verbose=False)
    encoder = {"bilstm": BiLSTM, "cnn": CNN, "average": TokenMLP}[cell["encoder"]](
        values=cell["values"], dropout=DROPOUT[cell["part"]]
    )
    attention = {"additive": AdditiveAttention, "dot": DotAttention}[cell["attention"]]()
    arms: dict[str, list[Mitigation]] = {
        "none": [NoMitigation()],
        "random_pretraining": [RandomPretraining(PRETRAINING_EPOCHS, seed=cell["seed"])],
        "instance_weighting": [InstanceWeighting(seed=cell["seed"])],
        "both": [RandomPretraining(PRETRAINING_EPOCHS, seed=cell["seed"]), InstanceWeighting(seed=cell["seed"])],
    }
    module = AttentionClassifier(
        PooledNetwork(encoder, attention),
        Compose(arms[cell["arm"]]),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5, amsgrad=True),
    )
    start = [UnitWordVectors()] if cell.get("start") == "unit" else []
    datamodule = SSTDataModule(data, batch_size=32, seed=cell["seed"])
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = BestAndLastCheckpoint(monitor="val/auroc", mode="max")
        faithfulness = FaithfulnessCallback(max_examples=None, splits=["test"])
        trainer = trainer_of(cell["epochs"], folder, [checkpoint, faithfulness, *start])
        trainer.fit(module, datamodule)
        measured = None if cell.get("epoch") == "last" else checkpoint.best_model_path
        logged = trainer.test(module, datamodule, ckpt_path=measured, verbose=False)[0]
    return {name: float(value) for name, value in logged.items()}


def report(results: dict[str, dict[str, float]], wanted: list[Cell], command: str) -> str:
    """The Markdown page."""

    def column(name: str, **chosen: object) -> list[float]:
        rows = [cell for cell in wanted if chosen.items() <= cell.items()]
        return [results[key(cell)][name] for cell in rows]

    first = []
    for (encoder, attention), published in PUBLISHED.items():
        ours = [column(COLUMNS[name], part=1, encoder=encoder, attention=attention) for name in list(COLUMNS)[:3]]
        pairs = zip(ours, published, strict=True)
        first.append([encoder, attention, *(f"{mean_and_deviation(mine)} ({theirs:.3f})" for mine, theirs in pairs)])
    second, differences = [], []
    for arm in ARMS:
        values = {name: column(logged, part=2, arm=arm) for name, logged in COLUMNS.items()}
        second.append([arm, *(mean_and_deviation(value) for value in values.values())])
        if arm != "none":
            plain = {name: column(logged, part=2, arm="none") for name, logged in COLUMNS.items()}
            differences.append([arm, *(paired_difference(values[name], plain[name]) for name in COLUMNS)])
    names = ("accuracy", "tau gradient", "tau LOO", "comprehensiveness")
    published_row = {"part": 1, "encoder": "bilstm", "attention": "additive"}
    third = [["0.1", "best", *(mean_and_deviation(column(COLUMNS[name], **published_row)) for name in names)]]
    for start, epoch in VARIANTS:
        figures = (mean_and_deviation(column(COLUMNS[name], part=3, start=start, epoch=epoch)) for name in names)
        third.append(["1" if start == "unit" else "0.1", epoch, *figures])
    text = (RESULTS / "sst_discussion.md").read_text() if (RESULTS / "sst_discussion.md").exists() else ""
    return "\n".join(
        [
            "# SST: attention with and without mitigations",
            "",
            f"Made by `{command}`; each training is a line of `results/sst.jsonl`. SST, two classes, batch 32, Adam "
            "(amsgrad, 1e-3, weight decay 1e-5), word vectors learned from scratch; the epoch with the best validation "
            "AUROC, measured on all 1,821 test sentences.",
            "",
            "## 1. Attention is not Explanation, SST rows",
            "",
            f"{EPOCHS[1]} epochs, no dropout. Mean ± standard deviation over 3 seeds; in brackets the figure in the "
            "result files of the authors' repository (pretrained word vectors, one training).",
            "",
            markdown_table(["encoder", "attention", "accuracy", "tau gradient", "tau LOO"], first),
            "## 2. Mitigations, BiLSTM keys with local values",
            "",
            f"{EPOCHS[2]} epochs, dropout {DROPOUT[2]}; {PRETRAINING_EPOCHS} of them are random pretraining where "
            "it is used. Mean ± standard deviation over 5 seeds, the same for every arm. Both mitigations are "
            "reconstructed from Bai et al. 2021.",
            "",
            markdown_table(["arm", *COLUMNS], second),
            "Paired difference to `none` with its 95 % interval over seeds; bold where the interval leaves out 0.",
            "",
            markdown_table(["arm", *COLUMNS], differences),
            "## 3. What the agreement depends on",
            "",
            "BiLSTM, additive, as in part 1 (its row stands first), 3 seeds: where the word vectors start (standard "
            "deviation 0.1 or 1), and whether the best epoch is measured or the last.",
            "",
            markdown_table(["start", "epoch", "accuracy", "tau gradient", "tau LOO", "comprehensiveness"], third),
            text,
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Compute what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.txt, dev.txt, test.txt of the treebank")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time")
    chosen = parser.parse_args(arguments)
    wanted = cells()
    run_cells(wanted, partial(train, data=chosen.data), RESULTS / "sst.jsonl", chosen.workers)
    page = report(finished(RESULTS / "sst.jsonl"), wanted, "python -m benchmarks.sst --data DIR")
    (RESULTS / "sst.md").write_text(page)


if __name__ == "__main__":
    main()
