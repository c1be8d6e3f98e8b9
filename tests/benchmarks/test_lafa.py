from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks import lafa, lafa_tuning
from benchmarks.cells import key
from benchmarks.lafa_page import page
from lightning_attn.attribution import LAFA, Lexicon
from lightning_attn.attribution.lafa import Nearest
from lightning_attn.attribution.lafa.kernels import Cosine, Indicator
from tests.helpers.tiny_models import save_model, save_tokenizer, tiny_config


@given(st.integers(2, 12), st.integers(0, 200), st.sampled_from([1e-12, 1.0, 1e6]))
def test_pearson_is_scipys(length: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(3, length, generator=generator) * scale
    evidence = torch.randint(0, 3, (3, length), generator=generator) / 2
    evidence[:, 0] = torch.nan
    inner = torch.rand(3, length, generator=generator) > 0.2
    found = lafa_tuning.pearson(scores, evidence, inner)
    for row in range(3):
        known = (inner[row] & ~evidence[row].isnan()).numpy()
        gold = evidence[row].numpy()[known]
        if known.sum() < 2 or (gold == gold[0]).all():
            assert found[row].isnan()
        else:
            expected = stats.pearsonr(scores[row].double().numpy()[known], gold)[0]
            assert found[row].item() == pytest.approx(expected, abs=1e-9)


def test_pearson_of_constant_scores_is_undefined() -> None:
    scores = torch.full((1, 4), 0.1)
    assert lafa_tuning.pearson(scores, torch.tensor([[0.0, 1, 0, 1]]), torch.ones(1, 4, dtype=torch.bool)).isnan().all()


def test_intervals_are_of_means_over_what_is_defined() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(0.3, 1, 400), [np.nan] * 50])
    mean, low, high = lafa.interval(values, np.random.default_rng(0))
    assert mean == pytest.approx(np.nanmean(values))
    error = np.nanstd(values) / 20
    assert low == pytest.approx(mean - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.3 * error)
    assert all(map(math.isnan, lafa.interval(np.array([np.nan]), np.random.default_rng(0))))


def trees(folder: Path) -> Path:
    folder.mkdir()
    words = {"good": 4, "fine": 3, "bad": 0, "poor": 1, "a": 2, "film": 2, "plot": 2, "the": 2}
    generator = np.random.default_rng(0)
    for split, count in (("train", 60), ("dev", 20), ("test", 20)):
        lines = []
        for number in range(count):
            mood = ("good", "fine", "bad", "poor")[number % 4]
            text = [*generator.choice(["a", "film", "plot", "the"], 4), mood]
            inside = " ".join(f"({words[word]} {word})" for word in text)
            lines.append(f"({words[mood]} {inside})")
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


#: Trained until both classes are predicted: neighbours are chosen by class, too.
CELL = {
    "task": "sst2",
    "rate": 1e-2,
    "test": 20,
    "seeds": 2,
    "epochs": 15,
    "validation": 12,
    "erased": 12,
    "samples": 2,
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Cells of both models, on a few sentences."""
    folder = tmp_path_factory.mktemp("lafa")
    trees(folder / "sst")
    model = folder / "model"
    save_model(model, tiny_config("bert", save_tokenizer(model, ["a good film", "the poor plot"])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_ATTN_CACHE", str(folder / "cache"))
        patch.setattr(lafa, "LAYERS", {"bilstm": ("keys", "pooled"), "minilm": ("hidden:1", "keys")})
        found = {}
        for name in ("bilstm", "minilm"):
            cell = {**CELL, "model": name, "seeds": 2 if name == "bilstm" else 1}
            result = lafa.compute(cell, str(folder), str(folder / "work"), str(model))
            found[key(cell)] = json.loads(json.dumps(result))
        again = {**CELL, "model": "bilstm"}
        repeated = lafa.compute(again, str(folder), str(folder / "work"), str(model))
    assert json.loads(json.dumps(repeated)) == found[key(again)], "from the networks and indices that are kept"
    return found


def test_every_method_is_measured(measured: dict[str, dict[str, Any]]) -> None:
    for result in measured.values():
        figures = result["figures"]
        assert set(figures) == {"pearson", "auprc", "auroc", "comprehensiveness", "sufficiency"}
        for by_method in figures.values():
            assert len(by_method) == 20
            for mean, low, high in by_method.values():
                assert low <= mean <= high
        if len(result["accuracy"]) == 1:  # of several networks, each has its own best kernel
            assert figures["auprc"]["LAFA"] in [figures["auprc"][f"LAFA, {kernel}"] for kernel in lafa_tuning.KERNELS]
        difference = result["differences"]["pearson"]["random"][0]
        assert difference == pytest.approx(figures["pearson"]["LAFA"][0] - figures["pearson"]["random"][0], abs=1e-9)


def test_the_page_has_every_table(measured: dict[str, dict[str, Any]]) -> None:
    wanted = [json.loads(name) for name in measured]
    text = page(measured, wanted, "What we make of it.")
    assert text.count("\n## SST, two classes") == 2
    assert "What we make of it." in text
    assert "LAFA, inverse clipped distance" in text
    assert "base and global lexicon" in text
    assert page({}, wanted, "").count("\n## ") == 0


def test_tuning_takes_the_best_on_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", str(tmp_path / "cache"))
    trees(tmp_path / "sst")
    cell = {**CELL, "model": "bilstm"}
    texts = lafa.data_of(cell, str(tmp_path), None)
    network, _ = lafa.trained(cell, 0, texts, tmp_path, None)
    index = lafa.NeighbourIndex.build(network, texts, tmp_path / "index")
    batches = lafa.batches_of(texts, "val", 20, positives=False)
    validation = lafa_tuning.Validation(network, batches, lafa_tuning.pearson)
    monkeypatch.setattr(lafa_tuning, "KERNELS", {"cosine": {"": Cosine()}, "indicator": {"": Indicator()}})
    selections = {"10": Nearest(10, None), "3": Nearest(3, None)}
    best = lafa_tuning.best_by_kernel(
        lafa_tuning.settings(validation, {("keys", "simple_gradient"): index}, selections)
    )
    for name, kernel in (("cosine", Cosine()), ("indicator", Indicator())):
        values = {
            (label, strength): validation.value(validation.scores(LAFA(index, kernel, selection, strength)))
            for label, selection in selections.items()
            for strength in lafa_tuning.STRENGTHS
        }
        assert best[name].value == pytest.approx(max(values.values()), abs=1e-6)
        assert best[name].value == pytest.approx(validation.value(validation.scores(best[name].method)), abs=1e-6)
    lexicon = lafa_tuning.best_lexicon(validation, {("keys", "simple_gradient"): index})
    values = [validation.value(validation.scores(Lexicon(index, strength))) for strength in lafa_tuning.STRENGTHS]
    assert lexicon.value == pytest.approx(max(values))
