"""What a selection explains: figures by hand, and what becomes of them in a training."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_attn.attention import AdditiveAttention, TopKSelection
from lightning_attn.callbacks import SelectionCallback
from lightning_attn.data.bags import DigitPairsDataModule, Digits
from lightning_attn.encoders import BiLSTM, PatchEncoder, PictureCNN
from lightning_attn.errors import InputError
from lightning_attn.metrics.fresh_reader import Part, reader_agreement, train_reader
from lightning_attn.metrics.selection import describe_mask, selection_figures, selection_rows
from lightning_attn.mitigations import RandomPretraining, WarmStart
from lightning_attn.networks import PictureSelectorNetwork, PooledNetwork, SelectorNetwork
from lightning_attn.networks.black_box import OpaqueNetwork, open_black_box
from lightning_attn.tasks import AttentionClassifier, BlackBoxExplainer
from lightning_attn.types import Batch, DataSchema
from tests.helpers.runs import tiny_data, trainer
from tests.helpers.toy_bags import toy_bag_network, toy_bags
from tests.helpers.toys import VOCABULARY, toy_batch

INK = 40.0  # that half of the pairs have
SCHEMA = DataSchema(num_classes=2, vocabulary_size=VOCABULARY)


def has_word(word: int) -> OpaqueNetwork:
    """A black box that says 1 of a text with this word, by a margin of 4."""

    def logits(batch: Batch) -> Tensor:
        there = ((batch.inputs == word) & batch.valid).any(dim=1).float()
        return torch.stack([2 - 4 * there, 4 * there - 2], dim=1)

    return OpaqueNetwork(logits, SCHEMA)


class Points(PooledNetwork):
    """Selects the positions with the largest token ids, and always says 0."""

    def __init__(self, k: int) -> None:
        super().__init__(BiLSTM(4, 2), TopKSelection(k))

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        keys, values = super().encode(embeddings, batch)
        self.attention.scorer.score = lambda _: batch.inputs.float()  # type: ignore[method-assign]
        return keys, values * 0


def points(k: int) -> Points:
    network = Points(k)
    network.build(SCHEMA)
    with torch.no_grad():
        network.head.layers.bias.copy_(torch.tensor([1.0, 0.0]))
    return network.eval()


def test_figures_by_hand() -> None:
    batch = toy_batch([4, 4, 4])
    batch.inputs[:] = torch.tensor([[5, 9, 3, 2], [5, 4, 3, 2], [9, 8, 7, 6]])
    batch = batch.replace(evidence=torch.tensor([[0.0, 1, 0, 0], [math.nan] * 4, [1.0, 0, 0, 1]]))
    rows = selection_rows(points(2), has_word(9), batch, draws=4)
    assert rows["said"].tolist() == [1, 0, 1]
    assert rows["fidelity"].tolist() == [0, 1, 0]
    assert rows["post_hoc_accuracy"].tolist() == [1, 1, 1]
    assert rows["post_hoc_rest"].tolist() == [0, 1, 0]
    assert rows["precision"][[0, 2]].tolist() == [0.5, 0.5]
    assert rows["precision"][1].isnan()
    assert rows["auroc"][0] == 1
    assert rows["selected_share"].tolist() == [0.5] * 3
    assert rows["random_accuracy"][1] == 1
    alone = selection_rows(points(2), has_word(9), batch.select(torch.tensor([2])), draws=4)
    assert alone["random_accuracy"][0] == rows["random_accuracy"][2]


def test_a_selection_of_everything_leaves_no_rest() -> None:
    rows = selection_rows(points(9), has_word(9), toy_batch([4, 3]))
    assert rows["post_hoc_rest"].isnan().all()
    assert (rows["post_hoc_accuracy"] == 1).all()


def test_the_mask_of_a_picture_is_described_cell_by_cell() -> None:
    network, batch = toy_bag_network("patches-selector"), toy_bags([12, 5], seed=3)
    attention = network(batch).attention
    mask = describe_mask(attention, batch, batch.inner, network.schema)
    assert mask.shape == (2, 12)
    cells = network.schema.cell(batch.inputs)
    expected = {int(cell) - 1 for cell in cells[0][attention[0] > 0] if cell}
    assert set(mask[0].nonzero().flatten().tolist()) == expected


def test_a_mask_that_tells_the_answer_is_found_out() -> None:
    generator = torch.Generator().manual_seed(0)
    said = torch.randint(0, 2, (200,), generator=generator)
    noise = (torch.rand(200, 20, generator=generator) < 0.3).float()
    telling = noise.clone()
    telling[:, 0] = said.float()
    for mask, low, high in ((noise, 0.3, 0.7), (telling, 0.99, 1.0)):
        rows = {"index": torch.arange(200), "said": said, "mask": mask, "fidelity": torch.ones(200)}
        arrays = {name: column.double().numpy() for name, column in rows.items()}
        figures, reasons = selection_figures(arrays, arrays)
        assert low <= figures["mask_only_accuracy"] <= high
        assert not reasons
    assert figures["mask_only_bits"] > 0.8
    arrays["said"][:] = 1
    assert "Fewer than two classes" in selection_figures(arrays)[1]["mask_only_accuracy"]


def test_soft_attention_and_nan_are_refused() -> None:
    soft = PooledNetwork(BiLSTM(4, 2), AdditiveAttention()).build(SCHEMA)
    with pytest.raises(InputError, match="AdditiveAttention gives every position some weight"):
        selection_rows(soft, has_word(9), toy_batch([4]))
    broken = points(2)
    with torch.no_grad():
        broken.head.layers.bias.fill_(math.nan)
    with pytest.raises(InputError, match="holds NaN or infinity: its training diverged"):
        selection_rows(broken, has_word(9), toy_batch([4]))


class Wrong(nn.Module):
    """A black box that gives what it is told to."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, batch: Batch) -> Tensor:
        return self.answer.expand(len(batch), -1)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (torch.tensor([[0.1, 0.9]]), "gives probabilities where logits are expected"),
        (torch.zeros(1, 3), r"gives \(2, 3\) where logits of shape \(2, 2\)"),
        (torch.zeros(1, 2, dtype=torch.long), "where logits of shape"),
    ],
)
def test_a_function_that_gives_no_logits_is_refused(answer: Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        open_black_box(Wrong(answer), SCHEMA, {})(toy_batch([3, 2]))


def test_black_boxes_for_other_data_are_refused() -> None:
    network = PooledNetwork(BiLSTM(4, 2))
    with pytest.raises(InputError, match="has no layers yet"):
        open_black_box(network, SCHEMA, {})
    network.build(DataSchema(num_classes=3, vocabulary_size=VOCABULARY))
    with pytest.raises(InputError, match="is for classes 3, but the data have 2"):
        open_black_box(network, SCHEMA, {})
    with pytest.raises(InputError, match=r"A black box is a checkpoint, .* not int"):
        open_black_box(3, SCHEMA, {})
    with pytest.raises(InputError, match="no embeddings and no attention"):
        has_word(3).embed(toy_batch([3]))


def pairs() -> DigitPairsDataModule:
    return DigitPairsDataModule(Digits(letters=(3, 8)), patch=2, train_size=96, val_size=40, test_size=40)


def picture_network(k: int = 4) -> PictureSelectorNetwork:
    torch.manual_seed(0)
    encoder = PatchEncoder(6, 6, layers=2, values="contextual")
    return PictureSelectorNetwork(encoder, PictureCNN(8, (4, 4, 4)), TopKSelection(k))


@pytest.mark.parametrize(
    "mitigation", [None, RandomPretraining(epochs=1), WarmStart(epochs=1)], ids=["none", "pre", "warm"]
)
def test_a_training_logs_what_the_selection_explains(tmp_path: Path, mitigation: object) -> None:
    def black_box(batch: Batch) -> Tensor:
        ink = batch.padded().inputs[..., :-2].sum(dim=(1, 2))
        return torch.stack([ink - INK, INK - ink], dim=1)

    module = BlackBoxExplainer(
        picture_network(),
        black_box,
        mitigation,
        partial(torch.optim.Adam, lr=1e-2),  # type: ignore[arg-type]
    )
    fit = trainer(tmp_path, max_epochs=2, callbacks=[SelectionCallback(draws=1)])
    fit.fit(module, pairs())
    values = {name: float(value) for name, value in fit.callback_metrics.items()}
    names = {name.removeprefix("val/selection/") for name in values if name.startswith("val/selection/")}
    expected = {"fidelity", "post_hoc_accuracy", "post_hoc_rest", "random_accuracy", "precision", "auroc"}
    assert expected | {"selected_share", "mask_only_accuracy", "mask_only_bits", "mask_only_accuracy_train"} <= names
    assert values["val/selection/fidelity"] == pytest.approx(values["val/fidelity"])
    assert values["val/selection/selected_share"] == pytest.approx(4 / 32)
    # The callback asks the black box anew, the module goes by what it remembers of the split.
    (tested,) = fit.test(module, pairs(), verbose=False)
    assert tested["test/fidelity"] == pytest.approx(tested["test/selection/fidelity"])


class Pointing(SelectorNetwork):
    """Selects the position with the largest token id."""

    def __init__(self) -> None:
        super().__init__(BiLSTM(8, 8), BiLSTM(8, 8), TopKSelection(1))

    def encode(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        self.attention.scorer.score = lambda _: batch.inputs.float()  # type: ignore[method-assign]
        return super().encode(embeddings, batch)


def words(count: int) -> Batch:
    """Texts of 6 words, of which one, at any place, is 9 or 8: the largest of them."""
    batch = toy_batch([6] * count)
    generator = torch.Generator().manual_seed(count)
    batch.inputs[:] = torch.randint(2, 8, (count, 6), generator=generator)
    place = torch.randint(6, (count,), generator=generator)
    batch.inputs[torch.arange(count), place] = 8 + torch.randint(2, (count,), generator=generator)
    return batch


def test_a_fresh_reader_learns_from_what_is_selected_and_not_from_the_rest() -> None:
    torch.manual_seed(0)
    network = Pointing().build(SCHEMA).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lessons, asked = [words(64 + number) for number in range(8)], words(200)
    agreement = {}
    part: Part
    for part in ("selection", "rest"):
        state = torch.get_rng_state()
        reader = train_reader(network, has_word(9), lessons, part, epochs=12, rate=2e-2)
        assert torch.equal(torch.get_rng_state(), state)
        agreement[part] = reader_agreement(reader, network, has_word(9), asked, part).mean().item()
        assert not reader.training
    assert agreement["selection"] > 0.98
    assert agreement["rest"] < 0.7, "neither what was left out nor where tells"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_fresh_reader_without_examples_is_refused() -> None:
    with pytest.raises(InputError, match="at least one batch and one epoch and a positive rate, got 0, 4"):
        train_reader(points(1), has_word(9), [])
    with pytest.raises(InputError, match="give SelectionCallback some train_examples"):
        SelectionCallback(train_examples=0, fresh_epochs=1)


def test_what_it_cannot_measure_is_one_sentence(tmp_path: Path) -> None:
    module: LightningModule = AttentionClassifier(PooledNetwork(BiLSTM(4, 2), TopKSelection(2)))
    fit = trainer(tmp_path, max_epochs=1, callbacks=[SelectionCallback()])
    with pytest.raises(InputError, match="AttentionClassifier explains none: use BlackBoxExplainer"):
        fit.fit(module, tiny_data())
    with pytest.raises(InputError, match="train_examples of at least 0"):
        SelectionCallback(train_examples=-1)
