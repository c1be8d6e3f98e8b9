"""The README's Python runs as it stands, and its commands name files and options that exist."""

import re
import shlex
from pathlib import Path

import pytest

from tests.helpers.tiny_models import save_classifier, save_tokenizer, tiny_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


HUB_MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


@pytest.mark.parametrize("code", BLOCKS, ids=["example", "hub", "architecture"])
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    if HUB_MODEL in code:  # nothing is downloaded: the same code reads a tiny model from a folder
        save_classifier(tmp_path, tiny_config("distilbert", save_tokenizer(tmp_path, ["the plot was not dull"])))
        code = code.replace(HUB_MODEL, str(tmp_path))
    exec(code, names)
    if "GRUNetwork" in names:
        train_new_architecture(names["GRUNetwork"])


def train_new_architecture(network: type) -> None:
    from pytorch_lightning import Trainer

    from lightning_attn.data import SyntheticReviewsDataModule
    from lightning_attn.tasks import AttentionClassifier

    data = SyntheticReviewsDataModule(train_size=64, val_size=32, test_size=32)
    trainer = Trainer(fast_dev_run=True, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(AttentionClassifier(network()), data)
    assert trainer.callback_metrics["val/loss"] > 0


def test_a_new_architecture_takes_less_than_25_lines() -> None:
    lines = next(block for block in BLOCKS if "AttentionNetwork)" in block).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("class "))
    assert len([line for line in lines[start:] if line.strip()]) < 25


def test_files_that_are_named_exist() -> None:
    named = set(re.findall(r"(?:configs|docs|notebooks|results)/[\w/.-]+\.\w+", README))
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_links_inside_the_project_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("http")]
    assert targets
    assert not [target for target in targets if not (ROOT / target.split("#")[0]).exists()]


def test_commands_exist() -> None:
    from lightning_attn.cli.commands import HELP

    commands = set(re.findall(r"^lightning (\w+)", README, flags=re.MULTILINE))
    assert commands
    assert all(re.search(rf"^  {command}\b", HELP, flags=re.MULTILINE) for command in commands)
    for line in re.findall(r"^lightning .*$", README.replace("\\\n", " "), flags=re.MULTILINE):
        assert shlex.split(line)
