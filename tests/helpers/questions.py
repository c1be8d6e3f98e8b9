"""Questions whose answer stands behind the word "is", a tiny model that reads them, and its module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_attn.data import QuestionProcessor, SQuADDataModule
from lightning_attn.mitigations import Mitigation
from lightning_attn.networks import TransformerQANetwork
from lightning_attn.tasks import QuestionAnswerer
from tests.helpers.tiny_models import save_model, save_tokenizer, tiny_config

COLOURS = ("red", "blue", "green", "grey")
THINGS = ("door", "boat", "wall", "hat")


def write(path: Path, articles: int = 12, lacking: bool = False) -> Path:
    """What colour is the door? The answer stands behind the word "is", after more or less of a preface."""
    data = []
    for number in range(articles):
        thing, colour = THINGS[number % 4], COLOURS[(number // 4) % 4]
        context = "once there was a town . " * (number % 3) + f"the {thing} is {colour} ."
        answers = [{"text": colour, "answer_start": context.index(f"is {colour}") + 3}]
        qas = [{"id": f"q{number}", "question": f"what colour is the {thing}", "answers": answers}]
        if lacking:
            qas.append({"id": f"n{number}", "question": "who was there", "answers": []})
        data.append({"title": str(number), "paragraphs": [{"context": context, "qas": qas}]})
    path.write_text(json.dumps({"version": "2.0", "data": data}))
    return path


@pytest.fixture(scope="module", name="model")
def question_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    words = " ".join([*COLOURS, *THINGS, "once there was a town . the is what colour who"])
    save_model(folder, tiny_config("bert", save_tokenizer(folder, [words] * 3, 200)))
    return folder


def data(model: Path, path: Path, **arguments: Any) -> SQuADDataModule:
    options = {"val": path, "test_share": 0.0, "batch_size": 4, **arguments}
    return SQuADDataModule(path, QuestionProcessor(str(model), 22, 4), **options)


def module(model: Path, mitigation: Mitigation | None = None, rate: float = 3e-3) -> QuestionAnswerer:
    torch.manual_seed(0)
    return QuestionAnswerer(
        TransformerQANetwork(str(model)), mitigation, lambda parameters: torch.optim.AdamW(parameters, lr=rate)
    )
