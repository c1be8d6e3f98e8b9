"""A question-answering model behind the contract: its own logits, spans as classes, and what explains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForQuestionAnswering, DebertaV2Config, GPT2Config

from lightning_attn.attribution import METHODS, MaskLRP, get
from lightning_attn.attribution.transformer.relevance import propagate
from lightning_attn.errors import InputError
from lightning_attn.networks import TransformerNetwork, TransformerQANetwork
from lightning_attn.types import Batch, DataSchema
from tests.helpers.tiny_models import KINDS, SMALL, save_model, tiny_config
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=2, class_names=("start", "end"), vocabulary_size=30, spans=True)


def save_answerer(folder: Path, kind: str = "bert", biases: bool = True) -> Path:
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_config(tiny_config(kind))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(10 if "embeddings" in name else 30 if "qa_outputs" in name else 4)
            elif not biases and name.endswith("bias"):
                parameter.zero_()
    model.save_pretrained(folder)
    return folder


def pairs(lengths: tuple[int, ...] = (12, 9, 10), asked: tuple[int, ...] = (3, 2, 4)) -> Batch:
    """``[CLS] question [SEP] context [SEP]``; ``asked`` counts the tokens of the questions."""
    batch = toy_batch(lengths, seed=2)
    place, count = torch.arange(batch.valid.shape[1]), torch.tensor(lengths)[:, None]
    middle = torch.tensor(asked)[:, None] + 1
    special = batch.valid & ((place == 0) | (place == middle) | (place == count - 1))
    segments = (batch.valid & (place > middle)).long()
    return batch.replace(
        special=special, segments=segments, target=torch.stack([middle[:, 0] + 1, middle[:, 0] + 2], 1)
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("answerers")
    return {kind: save_answerer(root / kind, kind) for kind in KINDS}


def made(folder: Path, **arguments: Any) -> TransformerQANetwork:
    return TransformerQANetwork(str(folder), **arguments).build(SCHEMA).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_model_within_the_context(kind: str, folders: dict[str, Path]) -> None:
    batch, network = pairs(), made(folders[kind])
    model = AutoModelForQuestionAnswering.from_pretrained(folders[kind], attn_implementation="eager").eval()
    types = {} if kind in ("distilbert", "roberta") else {"token_type_ids": batch.segments}
    expected = model(batch.inputs, attention_mask=batch.valid.long(), **types)
    found, allowed = network.ends(batch), network.answerable(batch)
    for number, logits in enumerate((expected.start_logits, expected.end_logits)):
        torch.testing.assert_close(found[:, number][allowed], logits[allowed], atol=1e-4, rtol=1e-5)
        assert (found[:, number][~allowed] < -1e30).all()
    context = [range(5, 11), range(4, 8), range(6, 9)]
    assert [row.nonzero().flatten().tolist() for row in allowed] == [[0, *part] for part in context]


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_is_that_of_a_search_over_all(longest: int, folders: dict[str, Path]) -> None:
    batch, network = pairs(), made(folders["bert"], max_answer_length=longest)
    ends, logits = network.ends(batch), network(batch).logits
    length = batch.valid.shape[1]
    for row in range(len(batch)):
        context = network.answerable(batch)[row].nonzero().flatten().tolist()[1:]
        allowed = {(s, e) for s in context for e in context if s <= e < s + longest} | {(0, 0)}
        scores = {(s, e): float(ends[row, 0, s] + ends[row, 1, e]) for s, e in allowed}
        best = max(scores, key=scores.__getitem__)
        number = int(logits[row].argmax())
        assert (number // length, number % length) == best
        assert int((logits[row] > -1e30).sum()) == len(allowed)
        probabilities = torch.tensor(list(scores.values())).softmax(dim=0)
        found = SCHEMA.probabilities(logits)[row]
        expected = probabilities[list(scores).index(best)]
        torch.testing.assert_close(found.max(), expected)
    assert network.number(torch.tensor([[2, 3]]), length).tolist() == [2 * length + 3]


def test_it_is_the_same_alone_and_padded_and_by_embeddings(folders: dict[str, Path]) -> None:
    batch, network = pairs(), made(folders["electra"])
    whole = network.ends(batch)
    output = network(batch)
    for row, length in enumerate((12, 9, 10)):
        alone = batch.select(torch.tensor([row])).shortened(length)
        torch.testing.assert_close(network.ends(alone)[0], whole[row, :, :length], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(network(alone).attention[0], output.attention[row, :length], atol=1e-5, rtol=1e-5)
    again = network(batch, embeddings=network.embed(batch))
    torch.testing.assert_close(again.logits, output.logits)
    torch.testing.assert_close(output.attention.sum(dim=1), torch.ones(3))
    assert not output.attention[~batch.valid].any()


def test_attention_is_what_eager_attention_gives_on_average(folders: dict[str, Path]) -> None:
    batch, network = pairs(), made(folders["bert"])
    model = AutoModelForQuestionAnswering.from_pretrained(folders["bert"], attn_implementation="eager").eval()
    inputs = {"attention_mask": batch.valid.long(), "token_type_ids": batch.segments, "output_attentions": True}
    maps = model(batch.inputs, **inputs).attentions[-1].mean(dim=1)
    for row in range(3):
        expected = maps[row, batch.valid[row]].mean(dim=0)
        torch.testing.assert_close(network(batch).attention[row], expected, atol=1e-5, rtol=1e-5)


EXPLAINING = sorted({"raw_attention", "rollout", "attention_gradient", "attention_gradcam", "attcat", "partial_lrp"})
EXPLAINING += ["full_lrp", "transatt", "attn_lrp", "cp_lrp", "integrated_gradients", "random"]


@pytest.mark.parametrize("name", EXPLAINING)
@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_methods_score_an_example_the_same_alone_and_padded(name: str, kind: str, folders: dict[str, Path]) -> None:
    batch, network = pairs(), made(folders[kind])
    scores = get(name).attribute(network, batch)
    assert scores.isfinite().all()
    assert not scores[~batch.inner].any()
    if name != "attention_gradcam":  # what it clips at 0 may be everything of a model that has learned nothing
        assert any(len(set(row[inner].tolist())) > 1 for row, inner in zip(scores, batch.inner, strict=True))
    for row, length in enumerate((12, 9, 10)):
        alone = batch.select(torch.tensor([row])).shortened(length)
        torch.testing.assert_close(get(name).attribute(network, alone)[0], scores[row, :length], atol=2e-4, rtol=1e-3)


def test_the_explained_logit_is_the_sum_of_start_and_end(folders: dict[str, Path]) -> None:
    """AttCAT's gradient part and TransAtt, against the two ends explained one by one in the eager model."""
    batch, network = pairs(), made(folders["bert"])
    length = batch.valid.shape[1]
    span = torch.tensor([[5, 7], [4, 4], [7, 8]])
    target = network.number(span, length)
    model = AutoModelForQuestionAnswering.from_pretrained(folders["bert"], attn_implementation="eager").eval()
    inputs = {"attention_mask": batch.valid.long(), "token_type_ids": batch.segments, "output_attentions": True}
    output = model(batch.inputs, **inputs)
    rows = torch.arange(3)
    logit = output.start_logits[rows, span[:, 0]] + output.end_logits[rows, span[:, 1]]
    gradients = torch.autograd.grad(logit.sum(), output.attentions)
    found = get("attention_gradient").attribute(network, batch, target)
    expected = (gradients[-1].mean(dim=1).sum(dim=1) / batch.valid.sum(dim=1, keepdim=True)).relu()
    torch.testing.assert_close(found, torch.where(batch.inner, expected, 0.0), atol=1e-4, rtol=1e-4)
    # TransAtt: the product of whole matrices, the rows of start and end
    relevance = propagate(network, batch, target).maps
    product = torch.eye(length).expand(3, -1, -1)
    for gradient, one in zip(gradients, relevance, strict=True):
        matrix = (gradient * one).relu().mean(dim=1) + torch.eye(length)
        product = (matrix / matrix.sum(dim=-1, keepdim=True)) @ product
    expected = product[rows, span[:, 0]] + product[rows, span[:, 1]]
    found = get("transatt").attribute(network, batch, target)
    torch.testing.assert_close(found, torch.where(batch.inner, expected, 0.0), atol=1e-5, rtol=1e-3)
    one = MaskLRP([[0, 1], [0, 1]]).attribute(network, batch, target)
    torch.testing.assert_close(one, found)


def test_relevance_of_a_span_is_that_of_its_ends_together(tmp_path: Path) -> None:
    """Without biases 1 goes in at each end and 2 comes out at the embeddings; by itself each end gives its own map."""
    network = made(save_answerer(tmp_path, biases=False))
    batch = pairs()
    target = network.number(torch.tensor([[5, 7], [4, 4], [7, 8]]), batch.valid.shape[1])
    found = propagate(network, batch, target)
    torch.testing.assert_close(found.embedding.sum(dim=(1, 2)), torch.full((3,), 2.0), atol=1e-3, rtol=1e-3)


def test_the_answer_that_is_explained_is_the_predicted_one(folders: dict[str, Path]) -> None:
    batch, network = pairs(), made(folders["bert"])
    predicted = network(batch).logits.argmax(dim=-1)
    given = get("transatt").attribute(network, batch, predicted)
    torch.testing.assert_close(get("transatt").attribute(network, batch), given)
    length = batch.valid.shape[1]
    other = torch.where(predicted == 5 * length + 5, 4 * length + 4, 5 * length + 5)
    assert not torch.allclose(get("transatt").attribute(network, batch, other), given, atol=1e-4)
    ends = F.one_hot(torch.stack([predicted // length, predicted % length]), length).sum(dim=0).float()
    torch.testing.assert_close(network.answer_rows(batch, predicted), ends)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_are_the_same_with_gradient_checkpointing(checkpointed: bool, folders: dict[str, Path]) -> None:
    found = []
    for option in (False, checkpointed):
        network = made(folders["bert"], gradient_checkpointing=option).train()
        torch.manual_seed(0)
        batch = pairs()
        F.cross_entropy(network.ends(batch).flatten(0, 1), batch.target.flatten()).backward()
        found.append({name: one.grad for name, one in network.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=30), "no bidirectional encoder"),
        (DebertaV2Config(vocab_size=30, **SMALL), "does not call registered attention functions"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_models_that_cannot_be_used_are_refused_by_name(config: Any, reason: str, tmp_path: Path) -> None:
    save_model(tmp_path, config)
    with pytest.raises(InputError, match=rf"is a {config.model_type} model, .*{reason}"):
        made(tmp_path)


def test_what_does_not_fit_is_refused(folders: dict[str, Path]) -> None:
    network, batch = made(folders["bert"]), pairs()
    assert TransformerNetwork.replaceable
    assert not network.replaceable
    output = network(batch)
    for replace in (
        lambda: network(batch, attention=output.attention),
        lambda: network.classify(output.values, output.attention, batch),
        lambda: network.classify_many(output.values, output.attention[:, None], batch),
    ):
        with pytest.raises(InputError, match="answers at every position by itself"):
            replace()
    with pytest.raises(InputError, match="for gradients attention_fixed: false"):
        get("gradient").attribute(network, batch)
    assert get("gradient", attention_fixed=False).attribute(network, batch).any()
    with pytest.raises(InputError, match="answers by spans of a text, but the data have classes"):
        TransformerQANetwork(str(folders["bert"])).build(DataSchema(num_classes=2, vocabulary_size=30))
    with pytest.raises(InputError, match="the data have questions: use TransformerQANetwork"):
        TransformerNetwork(str(folders["bert"])).build(SCHEMA)
    with pytest.raises(InputError, match="max_answer_length of at least 1, not 0"):
        TransformerQANetwork(str(folders["bert"]), max_answer_length=0)
    with pytest.raises(InputError, match=r"65 tokens .* reads 64"):
        network.ends(pairs((65,), (3,)))
    assert {"transatt", "attn_lrp"} <= METHODS.keys()
