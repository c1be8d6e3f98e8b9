import itertools
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from benchmarks.attention_is_not_explanation import cells, diagnoses, neighbour, quick, summary
from benchmarks.attention_models import SEEDS, BestAfterFirst, Places, PublishedTraining, SigmoidClassifier
from benchmarks.attention_page import ARMS, MODELS, PUBLISHED, Measurements, page, verdicts
from benchmarks.cells import key
from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.encoders import TokenMLP
from lightning_attn.networks import PooledNetwork

PLACES = Places(Path("data"), Path("vectors.vec"), Path("kept"))
FIGURES = ("gradient_p", "loo", "loo_p", "gradient_loo", "gradient_loo_p", "gradient_without_attention", "permutation")
SAMPLE = {"texts": 2000, "adversarial": 500}


def results(taus: dict[tuple[str, str], float], arm_effect: float = 0.0) -> dict[str, dict[str, float]]:
    """Made-up figures: tau as given, a little off from seed to seed, everything else 0.5."""
    found = {}
    for cell in cells():
        tau = (
            taus[cell["encoder"], cell["attention"]] + 0.01 * (cell["seed"] - 1) + arm_effect * ARMS.index(cell["arm"])
        )
        figures = dict.fromkeys([*FIGURES, "accuracy", "jsd", "largest"], 0.5) | {"gradient": tau, "epoch": 1.0}
        for source in ("uniform", "random", "other"):
            figures |= {f"{source}_change": 0.1, f"{source}_accuracy": 0.4}
        found[key(cell)] = figures | {f"tau/{epoch}": tau for epoch in range(cell["epochs"])}
    for cell in diagnoses():
        found[key(cell)] = {"test/accuracy": 0.7, "val/auroc": 0.8}
    return found


def published(change: float = 0.0) -> dict[tuple[str, str], float]:
    return {model: figures[1] + change for model, figures in PUBLISHED.items()}


def measurements(taus: dict[tuple[str, str], float], arm_effect: float = 0.0) -> Measurements:
    return Measurements(results(taus, arm_effect), [*cells(), *diagnoses()])


def test_every_cell_is_another_with_a_file_of_its_own() -> None:
    everything = [*cells(), *diagnoses(), *quick()]
    assert len({key(cell) for cell in everything}) == len(everything) == (4 + 2) * 6 * SEEDS + 2 * SEEDS + 2 * SEEDS
    assert len({PLACES.checkpoint(cell) for cell in everything}) == len(everything)


def test_the_neighbours_of_the_seeds_are_a_circle() -> None:
    cell = cells()[0]
    assert neighbour(cell)["seed"] != cell["seed"]
    assert neighbour(neighbour(neighbour(cell))) == cell


def test_the_published_figures_pass_their_own_verdicts() -> None:
    lines = verdicts(measurements(published()))
    assert lines[0] == "- 6 of 6 models are within 0.10 of the published tau against gradients."
    assert len(lines) == 6
    assert all("not" not in line for line in lines)


def test_verdicts_name_what_is_off() -> None:
    taus = published() | {("cnn", "dot"): 0.48}
    lines = verdicts(measurements(taus))
    assert (
        lines[0] == "- 5 of 6 models are within 0.10 of the published tau against gradients; off are cnn dot by +0.240."
    )
    assert [line for line in lines if "does not hold" in line] == [lines[2], lines[4]]
    assert "with dot attention, average 0.347 > cnn 0.480 > bilstm 0.073: does not hold" in lines[2]
    assert "for cnn, additive 0.477 > dot 0.480: does not hold" in lines[4]
    assert "within 0.10" in verdicts(measurements(published(0.101)))[0]
    assert verdicts(measurements(published(0.101)))[0].startswith("- 0 of 6")


def test_the_page_shows_what_is_finished_and_only_that() -> None:
    whole = page(measurements(published(), arm_effect=0.1), SAMPLE)
    assert [line[:5] for line in whole.splitlines() if line.startswith("## ")] == [
        f"## {part}." for part in range(1, 6)
    ]
    # constant differences over seeds: the interval leaves 0 out, and is as narrow as the difference is sure
    assert "| random_pretraining | all six |  | +0.000 [+0.000, +0.000] | **+0.100 [+0.100, +0.100]** |" in whole
    assert "| bilstm | additive | .500 ± .000 (0.808) | .351 ± .010 (0.351) | 0.50 (0.49) |" in whole
    assert "0.100 (-0.100)" in whole
    for table in whole.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    some = {cell: row for cell, row in results(published()).items() if '"babi"' not in cell and '"both"' not in cell}
    part = page(Measurements(some, [*cells(), *diagnoses()]), SAMPLE)
    assert "bAbI 1 |" not in part
    assert "## 4." not in part
    assert "inference" in part
    assert page(Measurements({}, cells()), SAMPLE).count("##") == 0


def test_a_summary_leaves_out_and_counts_what_is_undefined() -> None:
    found = summary({"tau": [torch.tensor([0.5, torch.nan]), torch.tensor([0.0, 1.0])]})
    assert found["tau"] == pytest.approx(0.5)
    assert found["tau_sd"] == pytest.approx(0.5)
    assert found["tau_undefined"] == 1


def test_the_softmax_of_the_sigmoid_head_is_a_sigmoid() -> None:
    torch.manual_seed(0)
    head = SigmoidClassifier()
    head.make_layers(5, 2)
    pooled = torch.randn(4, 5)
    logits = head(pooled)
    expected = (pooled @ head.layers.weight[0] + head.layers.bias).sigmoid()
    torch.testing.assert_close(logits.softmax(dim=-1)[:, 1], expected)
    target = torch.tensor([0, 1, 1, 0])
    loss = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(loss, torch.nn.functional.binary_cross_entropy(expected, target.float()))


class Scores(BestAfterFirst):
    """Notes the epochs in which the best checkpoint was written."""

    def __init__(self) -> None:
        super().__init__(monitor="val/loss", mode="max")
        self.epochs: list[int] = []

    def on_validation_end(self, trainer: Trainer, pl_module: object) -> None:
        before = self.best_model_score
        super().on_validation_end(trainer, pl_module)
        if self.best_model_score != before:
            self.epochs.append(trainer.current_epoch)


def test_published_training_keeps_no_first_epoch_and_decays_all_but_the_attention(tmp_path: Path) -> None:
    network = PooledNetwork(TokenMLP(8, 8), head=SigmoidClassifier())
    module = PublishedTraining(network)
    best = Scores()  # the largest loss: that of the first epoch, were it not left out
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[best],
        limit_train_batches=4,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, SyntheticReviewsDataModule())
    assert best.epochs[0] == 1
    decayed, free = trainer.optimizers[0].param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (1e-5 / 32, 0)
    assert {id(one) for one in free["params"]} == {id(one) for one in network.attention.parameters()}
    both = [id(one) for one in itertools.chain(decayed["params"], free["params"])]
    assert sorted(both) == sorted(id(one) for one in module.parameters())


def test_there_are_six_models() -> None:
    assert set(MODELS) == set(PUBLISHED)
