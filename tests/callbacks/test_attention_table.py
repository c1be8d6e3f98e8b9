import html
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_attn.callbacks import AttentionTableCallback
from lightning_attn.errors import InputError
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.runs import loader, tiny_data, tiny_module, trainer
from tests.helpers.toys import toy_batch, toy_network


def page(folder: Path, stage: str = "val") -> str:
    return (folder / "attention" / f"{stage}.html").read_text(encoding="utf-8")


def examples(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"<h2>Example (\d+)", text)]


def test_one_page_shows_the_same_texts_down_the_epochs(tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path, max_epochs=3, callbacks=[AttentionTableCallback(max_examples=5)])
    run.fit(tiny_module(data), data)
    text = page(tmp_path)
    assert len(examples(text)) == 5
    assert examples(text) != list(range(5))
    for epoch in range(3):
        assert text.count(f">epoch {epoch}: ") == 5
    sentences = [html.unescape(re.sub(r"<[^>]+>", "", row)) for row in re.findall(r"</td><td>(.*?)</td></tr>", text)]
    assert sentences[0] == sentences[1] == sentences[2]
    first = data.dataset("val")[[examples(text)[0]]]
    assert sentences[0] == " ".join(data.processor.tokens(first.inputs[0][first.inner[0]].tolist()))
    assert (tmp_path / "attention" / "val.png").stat().st_size > 10_000


def test_the_page_shows_the_attention_of_the_network(tmp_path: Path) -> None:
    network, batch = toy_network(), toy_batch([4, 7], special=True)
    run = trainer(tmp_path, callbacks=[AttentionTableCallback()])
    run.validate(AttentionClassifier(network), loader(batch), verbose=False)
    shown = [float(value) for value in re.findall(r'title="([^"]+)"', page(tmp_path))]
    attention = network(batch).attention[batch.inner]
    torch.testing.assert_close(torch.tensor(shown), attention.detach(), atol=1e-4, rtol=1e-3)
    assert ">validate: " in page(tmp_path)


def test_tokens_are_ids_without_a_text_data_module_and_special_ones_are_left_out(tmp_path: Path) -> None:
    batch = toy_batch([5], special=True)
    run = trainer(tmp_path, callbacks=[AttentionTableCallback()])
    run.test(AttentionClassifier(toy_network()), loader(batch), verbose=False)
    shown = [int(token) for token in re.findall(r"rgba[^>]+>(\d+)</span>", page(tmp_path, "test"))]
    assert shown == batch.inputs[0, 1:4].tolist()


def test_hostile_tokens_are_escaped(tmp_path: Path) -> None:
    data = tiny_data()
    data.processor.vocabulary[4:] = ["<script>alert(1)</script>"] * len(data.processor.vocabulary[4:])
    run = trainer(tmp_path, callbacks=[AttentionTableCallback()])
    run.validate(tiny_module(data), data, verbose=False)
    assert "<script" not in page(tmp_path)
    assert "&lt;script&gt;" in page(tmp_path)


def test_epochs_between_are_not_shown(tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path, max_epochs=4, callbacks=[AttentionTableCallback(every_n_epochs=2)])
    run.fit(tiny_module(data), data)
    assert set(re.findall(r">epoch (\d)", page(tmp_path))) == {"1", "3"}


def test_several_labels_an_example_are_named(tmp_path: Path) -> None:
    batch = toy_batch([5, 6, 7], classes=3, multi_label=True)
    run = trainer(tmp_path, callbacks=[AttentionTableCallback()])
    run.validate(AttentionClassifier(toy_network(classes=3, multi_label=True)), loader(batch), verbose=False)
    for row in batch.target:
        names = ", ".join(str(label) for label in row.nonzero().flatten().tolist()) or "none"
        assert f": {names}</h2>" in page(tmp_path)


def test_tensorboard_gets_the_picture(tmp_path: Path) -> None:
    data = tiny_data()
    logger = TensorBoardLogger(tmp_path, name="tb", version="0")
    run = trainer(tmp_path, max_epochs=2, logger=logger, callbacks=[AttentionTableCallback()])
    run.fit(tiny_module(data), data)
    logger.experiment.close()
    events = EventAccumulator(str(tmp_path / "tb" / "0"))
    events.Reload()
    assert len(events.Images("val/attention")) == 2
    assert "Example" in page(tmp_path / "tb" / "0")


def test_a_full_disk_does_not_end_the_training(tmp_path: Path) -> None:
    (tmp_path / "attention").write_text("a file where the folder would be")
    data = tiny_data()
    run = trainer(tmp_path, callbacks=[AttentionTableCallback()])
    with pytest.warns(UserWarning, match="run folder could not take"):
        run.fit(tiny_module(data), data)
    assert run.state.finished


def test_two_of_them_would_write_the_same_page(tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path, callbacks=[AttentionTableCallback(seed=0), AttentionTableCallback(seed=1)])
    with pytest.raises(InputError, match="Two AttentionTableCallbacks would log under the same names"):
        run.fit(tiny_module(data), data)


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="max_examples of at least 1, not 0"):
        AttentionTableCallback(max_examples=0)
