"""The list of logged names in ``docs/architecture.md`` is what tiny runs of all tasks and callbacks log."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import torch
from torch import Tensor

from lightning_attn.attention import AdditiveAttention, TopKSelection
from lightning_attn.callbacks import (
    AnswerRecallCallback,
    FaithfulnessCallback,
    InstanceCallback,
    SelectionCallback,
    ShortcutProbe,
)
from lightning_attn.callbacks.faithfulness import KNOWN
from lightning_attn.data import DefaultTokens
from lightning_attn.encoders import BiLSTM
from lightning_attn.experiments import (
    AdversarialCallback,
    AgreementCallback,
    CounterfactualCallback,
    DisagreementCallback,
    PermutationCallback,
)
from lightning_attn.mitigations import Compose, InstanceWeighting, LeakagePenalty, RandomPretraining
from lightning_attn.networks import AttentionEnsemble, ContentFreeNetwork, PooledNetwork
from lightning_attn.tasks import AttentionClassifier, BlackBoxExplainer
from lightning_attn.types import Batch
from tests.helpers import questions
from tests.helpers.questions import question_model  # noqa: F401 - the fixture `model`
from tests.helpers.runs import RecordingLogger, bag_module, tiny_bags, tiny_data, tiny_module, trainer

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


def listed() -> list[str]:
    """The patterns of the page, one per name: ``{a,b}`` is written out, CAPITALS stand for any part, * for the rest."""
    block = PAGE.read_text().split("## Names of what is logged")[1].split("```")[1]
    names = []
    for pattern in re.sub(r"#.*", "", block.removeprefix("text")).split():
        parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
        names += ["".join(choice) for choice in itertools.product(*parts)]
    return names


def parity(batch: Batch) -> Tensor:
    """A black box that says each class of about half of the texts."""
    odd = (batch.inputs.sum(dim=1) % 2).float()
    return torch.stack([3 * odd, 3 - 3 * odd], dim=1)


def logged(folder: Path, model: Path) -> set[str]:
    logger = RecordingLogger()
    data = tiny_data(train=40, val=40, test=30, processor=DefaultTokens(3))
    callbacks = [
        FaithfulnessCallback(max_examples=16, metrics=KNOWN),
        ShortcutProbe(),
        *(kind(splits=["val"], max_examples=16) for kind in (AgreementCallback, PermutationCallback)),
        *(kind(splits=["val"], max_examples=16) for kind in (AdversarialCallback, CounterfactualCallback)),
    ]
    network = PooledNetwork(BiLSTM(8, 6, values="local"), AdditiveAttention(attend_special=True)).build(data.schema)
    module = AttentionClassifier(
        network, Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=2), LeakagePenalty()])
    )
    trainer(folder, max_epochs=2, logger=logger, callbacks=callbacks).fit(module, data)

    content_free = AttentionClassifier(ContentFreeNetwork(BiLSTM(8, 6)).build(data.schema))
    run = trainer(folder, logger=logger, callbacks=[ShortcutProbe(metrics=["head_bits"])])
    run.validate(content_free, data, verbose=False)

    data = tiny_data()
    ensemble = AttentionEnsemble([tiny_module(data, sharpness=3.0 + number).network for number in range(2)])
    run = trainer(folder, logger=logger, callbacks=[DisagreementCallback()])
    run.test(AttentionClassifier(ensemble), data, verbose=False)

    data = tiny_data(train=60, val=60)
    selector = PooledNetwork(BiLSTM(8, 6, values="local"), TopKSelection(2))
    run = trainer(folder, logger=logger, callbacks=[SelectionCallback(draws=1, fresh_epochs=1)])
    run.fit(BlackBoxExplainer(selector, parity), data)

    bags = tiny_bags()
    trainer(folder, logger=logger, callbacks=[InstanceCallback()]).test(bag_module(bags), bags, verbose=False)

    asked = questions.data(model, questions.write(folder / "questions.json"))
    run = trainer(folder, logger=logger, callbacks=[AnswerRecallCallback(methods=["random"])])
    run.fit(questions.module(model), asked)
    return {name for row in logger.rows for name in row} - {"epoch"}


def test_the_page_lists_what_is_logged_and_nothing_else(tmp_path: Path, model: Path) -> None:
    names, patterns = logged(tmp_path, model), listed()
    assert len(patterns) == len(set(patterns)), "no name stands twice"
    matching = {pattern: re.compile(re.sub(r"[A-Z]+", "[^/]+", pattern).replace("*", ".+")) for pattern in patterns}

    def any_split(name: str) -> tuple[str, ...]:
        return (name, re.sub("^test/", "val/", name))

    missing = [n for n in names if not any(p.fullmatch(one) for p in matching.values() for one in any_split(n))]
    assert not missing, "add them to docs/architecture.md"
    gone = [name for name, p in matching.items() if not any(p.fullmatch(one) for n in names for one in any_split(n))]
    assert not gone, "nothing logs these: take them out of docs/architecture.md"
