"""Training on questions: answers across windows, exact match and F1, any number of processes, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics.text import SQuAD

from lightning_attn.callbacks import AnswerRecallCallback
from lightning_attn.cli.commands import main
from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.data.questions import read_questions
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer, default_methods
from lightning_attn.explain.readers import NO_ANSWER
from lightning_attn.metrics import AnswerRecall, BestAnswers
from lightning_attn.metrics.functional import answer_recall
from lightning_attn.mitigations import Compose, InstanceWeighting, MaskedFineTuning, RandomPretraining
from lightning_attn.networks import PooledNetwork
from lightning_attn.tasks import AttentionClassifier, QuestionAnswerer
from tests.helpers.commands import command, run, start, write_config
from tests.helpers.questions import COLOURS, data, module, question_model, write  # noqa: F401 - the fixture `model`
from tests.helpers.runs import trainer
from tests.helpers.toys import toy_batch


@pytest.mark.parametrize("lacking", [False, True])
def test_answers_are_the_best_over_all_windows(lacking: bool, model: Path, tmp_path: Path) -> None:
    questions = data(model, write(tmp_path / "a.json", lacking=lacking))
    answerer = module(model)
    run_by = trainer(tmp_path)
    (figures,) = run_by.validate(answerer, questions, verbose=False)
    windows = questions.dataset("val")
    assert len(windows) > len(windows.questions)
    network = answerer.network.eval()
    best: dict[str, tuple[float, str]] = {}
    none: dict[str, float] = {}
    with torch.no_grad():
        for row in range(len(windows)):
            batch = windows[row]
            start, end = network.ends(batch)[0]
            question = windows.questions[windows.owner[row]]
            places = windows.spans[windows.offsets[row] : windows.offsets[row + 1]]
            context = [place for place in range(len(places)) if places[place, 0] >= 0]
            none[question.key] = min(none.get(question.key, float("inf")), float(start[0] + end[0]))
            for first in context:
                for last in context:
                    if first <= last < first + 30:
                        text = question.context[places[first, 0] : places[last, 1]]
                        score = float(start[first] + end[last])
                        if score > best.get(question.key, (-float("inf"), ""))[0]:
                            best[question.key] = (score, text)
    expected = {key: "" if lacking and none[key] > score else text for key, (score, text) in best.items()}
    assert answerer.answers("val") == expected
    score = SQuAD()
    for question in windows.questions:
        right = {"text": question.texts, "answer_start": [0]}
        score.update(
            {"id": question.key, "prediction_text": expected[question.key]}, {"id": question.key, "answers": right}
        )
    found = score.compute()
    assert figures["val/exact_match"] == pytest.approx(float(found["exact_match"]) / 100)
    assert figures["val/f1"] == pytest.approx(float(found["f1"]) / 100)


@pytest.mark.parametrize("mitigation", [None, lambda: MaskedFineTuning(0.25)], ids=["none", "masked"])
def test_it_learns_where_the_answer_stands(mitigation: Any, model: Path, tmp_path: Path) -> None:
    questions = data(model, write(tmp_path / "a.json", 24))
    answerer = module(model, mitigation and mitigation())
    callbacks = [AnswerRecallCallback(["transatt", "random"], k=3, max_examples=8)]
    run_by = trainer(tmp_path, max_epochs=12, callbacks=callbacks, check_val_every_n_epoch=12)
    (before,) = trainer(tmp_path).validate(answerer, questions, verbose=False)
    run_by.fit(answerer, questions)
    after = {name: float(value) for name, value in run_by.callback_metrics.items()}
    assert after["val/loss"] < 0.5 * before["val/loss"]
    assert after["val/exact_match"] > 0.5 >= before["val/exact_match"]
    assert 0 <= after["val/answer_recall/transatt"] <= 1
    assert after["val/answer_recall/random"] < 1


def figures(folder: Path) -> dict[str, float]:
    with (folder / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    return {name: float(value) for name, value in row.items() if name.startswith("test/")}


def answering(folder: Path, model: Path, module: dict[str, Any], data: dict[str, Any], trained: dict[str, Any]) -> Path:
    """A configuration that trains the tiny model on questions, with these arguments beside."""
    split = {"name_or_path": str(model), "max_length": 22, "stride": 4}
    processor = {"class_path": "QuestionProcessor", "init_args": split}
    network = {"class_path": "TransformerQANetwork", "init_args": {"name_or_path": str(model)}}
    return write_config(
        folder,
        model={"class_path": "QuestionAnswerer", "init_args": {"network": network, **module}},
        data={"class_path": "SQuADDataModule", "init_args": {"processor": processor, **data}},
        trainer={"accelerator": "cpu", "devices": 1, **trained},
    )


def test_the_command_line_trains_tests_and_goes_on(model: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", lacking=True)
    trained = {"max_epochs": 2, "precision": "bf16-mixed"}
    config = answering(tmp_path, model, {"lr_scheduler": "WarmupLinear"}, {"train": str(path)}, trained)
    folder = run("fit", config, tmp_path / "runs")
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["schema"]["spans"] is True
    best = f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}"
    alone = figures(run("test", config, tmp_path / "alone", best, "--trainer.precision=32"))
    two = [
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.use_distributed_sampler=false",
        "--wandb=disabled",
    ]
    process = start(*command("test", config, tmp_path / "two", best, "--trainer.precision=32", *two))
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    (shared,) = (tmp_path / "two").iterdir()
    assert {"test/loss", "test/exact_match", "test/f1"} <= alone.keys()
    assert figures(shared) == pytest.approx(alone, abs=1e-6)
    run(
        "fit",
        config,
        tmp_path / "runs",
        f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}",
        "--trainer.max_epochs=3",
    )


@pytest.mark.parametrize("lacking", [False, True])
def test_predict_and_explain_answer_alike(
    lacking: bool, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.json", lacking=lacking)
    config = answering(tmp_path, model, {}, {"train": str(path), "test": str(path)}, {"max_epochs": 3})
    folder = run("fit", config, tmp_path / "runs")
    best = str(folder / "checkpoints" / "best.ckpt")
    predicted = run("predict", config, tmp_path / "predicted", f"--ckpt_path={best}")
    rows = [json.loads(line) for line in (predicted / "predictions.jsonl").read_text().splitlines()]
    questions = read_questions(path)
    assert [row["id"] for row in rows] == [question.key for question in questions]
    assert all(row["prediction"] in question.context for row, question in zip(rows, questions, strict=True))

    explainer = Explainer(best)
    contexts, asked = [question.context for question in questions], [question.text for question in questions]
    explained = explainer.explain(contexts, ["transatt", "gradient"], 5, queries=asked)
    for row, item in zip(rows, explained, strict=True):
        if item.prediction == NO_ANSWER:  # predict answers in any case where every question of the file has an answer
            assert row["prediction"] == "" or not lacking
        else:
            assert row["prediction"] == item.prediction
        values = item.attributions
        assert len(item.tokens) == len(values["transatt"]) == len(values["gradient"]) == len(item.sides or [])
        assert max(item.attributions["transatt"]) > 0
        own = [token for token, side in zip(item.tokens, item.sides or [], strict=True) if side]
        assert "".join(own) == item.query.replace(" ", "")
        part = "".join(token for token, side in zip(item.tokens, item.sides or [], strict=True) if not side)
        assert part in item.text.replace(" ", "")
        assert item.prediction == NO_ANSWER or item.prediction.replace(" ", "") in part
        assert 0 < item.probabilities[item.prediction] <= sum(item.probabilities.values()) <= 1 + 1e-6
        assert next(iter(item.probabilities)) == item.prediction

    page = tmp_path / "page.html"
    options = [f"--ckpt_path={best}", "--text", contexts[2], "--query", asked[2], f"--output={page}"]
    capsys.readouterr()
    assert main(["explain", *options]) == 0
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(line["scores"]) == list(default_methods(explainer.network))
    assert line["prediction"] in page.read_text()
    for more, reason in (
        (["explain", f"--ckpt_path={best}", "--text", contexts[2]], "answers questions: give each text its question"),
        (["explain", *options, "--method=occlusion"], "a network that answers by spans has none"),
    ):
        assert main(more) == 2
        assert reason in " ".join(capsys.readouterr().err.split())


def test_the_best_answer_of_a_question_is_found_whatever_the_order() -> None:
    metric, other = BestAnswers(), BestAnswers()
    question = torch.tensor([3, 1, 3, 1, 3])
    logit, none = torch.tensor([1.0, 5.0, 2.0, 4.0, -1.0]), torch.tensor([0.5, 9.0, 0.1, 3.0, 7.0])
    span = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]])
    index = torch.arange(5)
    metric.update(question, logit, span, none, index)
    for part in (torch.tensor([4, 2]), torch.tensor([0, 1, 3, 4])):  # the last window twice
        other.update(question[part], logit[part], span[part], none[part], index[part])
    expected = [[1.0, 5.0, 2.0, 3.0, 3.0], [3.0, 2.0, 4.0, 5.0, 0.1]]
    torch.testing.assert_close(metric.compute(), torch.tensor(expected), check_dtype=False)
    torch.testing.assert_close(other.compute(), metric.compute())
    assert BestAnswers().compute().shape == (0, 5)


def test_recall_of_the_answer_by_hand() -> None:
    batch = toy_batch([6, 4, 5], special=True)
    evidence = torch.full(batch.valid.shape, torch.nan)
    evidence[0, 1:5] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    evidence[1, 1:3] = torch.tensor([1.0, 0.0])
    evidence[2, 1:4] = 0.0
    batch = batch.replace(evidence=evidence)
    scores = torch.zeros(batch.valid.shape)
    scores[0, 1:5] = torch.tensor([0.3, 0.9, 0.1, 0.2])
    scores[1, :4] = torch.tensor([9.0, 0.1, 0.5, 9.0])  # special tokens do not count
    found, total = answer_recall(scores, batch, 2)
    assert found.tolist() == [1, 1, 0]
    assert total.tolist() == [2, 1, 0]
    metric = AnswerRecall(2)
    metric.update(scores, batch)
    metric.update(scores, batch)  # again: counts once
    assert metric.compute() == pytest.approx(2 / 3)
    assert metric.count == 2
    assert answer_recall(scores, batch, 1)[0].tolist() == [1, 0, 0]
    assert AnswerRecall().compute().isnan()
    with pytest.raises(ValueError, match="k of at least 1"):
        answer_recall(scores, batch, 0)
    with pytest.raises(ValueError, match="needs a batch whose evidence"):
        answer_recall(scores, batch.replace(evidence=None))


@pytest.mark.parametrize(
    "mitigation",
    [RandomPretraining, InstanceWeighting, lambda: Compose([MaskedFineTuning(), RandomPretraining()])],
    ids=["random", "weighting", "both"],
)
def test_mitigations_of_weights_are_refused(mitigation: Any, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="acts on weights that pool a text, and a network that answers questions"):
        trainer(tmp_path).fit(module(model, mitigation()), data(model, write(tmp_path / "a.json")))


def test_modules_of_classes_and_of_questions_are_not_mixed_up(model: Path, tmp_path: Path) -> None:
    questions = data(model, write(tmp_path / "a.json"))
    with pytest.raises(InputError, match="data have questions: use QuestionAnswerer"):
        trainer(tmp_path).fit(AttentionClassifier(PooledNetwork()), questions)
    with pytest.raises(InputError, match="QuestionAnswerer trains a TransformerQANetwork, not a PooledNetwork"):
        trainer(tmp_path).fit(QuestionAnswerer(PooledNetwork()), questions)
    reviews = SyntheticReviewsDataModule(train_size=8, val_size=4, test_size=4)
    with pytest.raises(InputError, match="AnswerRecallCallback is for questions"):
        trainer(tmp_path, callbacks=[AnswerRecallCallback()]).validate(AttentionClassifier(PooledNetwork()), reviews)
