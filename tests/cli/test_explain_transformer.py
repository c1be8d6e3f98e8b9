from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_attn.attribution import METHODS, MaskLRP, TransformerAttribution, get
from lightning_attn.cli.commands import main
from lightning_attn.explain import Explainer
from lightning_attn.visualization.explain_page import TITLES
from tests.helpers.commands import TINY, run, write_config
from tests.helpers.tiny_models import save_model, save_tokenizer, tiny_config

TEXTS = ["the plot was not dull .", "a superb cast"]
OF_TRANSFORMERS = sorted(name for name, method in METHODS.items() if issubclass(method, TransformerAttribution))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    save_model(folder / "model", tiny_config("bert", save_tokenizer(folder / "model", TEXTS)))
    processor = {"class_path": "HuggingFaceProcessor", "init_args": {"name_or_path": str(folder / "model")}}
    processor["init_args"]["max_length"] = 64  # type: ignore[index]
    data = {**TINY["data"], "init_args": {**TINY["data"]["init_args"], "processor": processor}}
    network = {"class_path": "TransformerNetwork", "init_args": {"name_or_path": str(folder / "model")}}
    model = {"class_path": "AttentionClassifier", "init_args": {"network": network}}
    config = write_config(folder, model=model, data=data)
    return run("fit", config, folder / "runs", "--trainer.max_epochs=1") / "checkpoints" / "best.ckpt"


def test_methods_stand_side_by_side(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads, page = tmp_path / "heads.json", tmp_path / "page.html"
    found = {"reasons": {"0.0": ["syntactic <nsubj", "positional -1"]}}
    heads.write_text(json.dumps({"layers": [[0], [1]], "found": found}))
    names = [*OF_TRANSFORMERS, "mask_lrp", "mask_lrp_released", "attention"]
    options = [f"--method={','.join(names)}", f"--heads={heads}", f"--output={page}"]
    assert main(["explain", f"--ckpt_path={checkpoint}", "--text", *TEXTS, *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    explainer = Explainer(checkpoint)
    for line, text in zip(lines, TEXTS, strict=True):
        assert list(line["scores"]) == names
        batch = explainer.processor.batch([text])
        for name in names:
            method = get(name) if name in METHODS else MaskLRP([[0], [1]])
            if name != "mask_lrp_released":
                scores = method.attribute(explainer.network, batch)[0][batch.inner[0]]
                assert line["scores"][name] == pytest.approx(scores.tolist(), abs=1e-5), name
    shown = page.read_text()
    assert all(TITLES[name][0] in shown for name in names)
    assert "2 of 4 attention heads are important" in shown
    assert shown.count('<td class="important"') == 2
    assert 'title="0.0: syntactic &lt;nsubj, positional -1"' in shown
    assert 'title="1.1: important"' in shown


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--method=mask_lrp"], "needs the important attention heads: give a JSON file as --heads"),
        (["--method=rollout", "--heads=HEADS"], "--heads is for the method mask_lrp"),
        (["--method=mask_lrp", "--heads=HEADS"], "for 1 layers, and the model has 2: they belong to another model"),
        (["--method=mask_lrp", "--heads=nowhere.json"], "nowhere.json"),
        (["--method=lrp"], "no attribution method 'lrp'"),
        (["--method=mask_lrp", "--heads=REASONS"], '"reasons" of'),
    ],
)
def test_bad_input_gives_one_sentence(
    options: list[str], reason: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = tmp_path / "heads.json"
    heads.write_text('{"layers": [[0]]}')
    reasons = tmp_path / "reasons.json"
    reasons.write_text('{"layers": [[0], [1]], "found": {"reasons": {"0.0": "<b>"}}}')
    options = [option.replace("HEADS", str(heads)).replace("REASONS", str(reasons)) for option in options]
    assert main(["explain", f"--ckpt_path={checkpoint}", "--text", TEXTS[0], *options]) == 2
    error = capsys.readouterr().err
    assert reason in " ".join(error.split())
    assert "Traceback" not in error
