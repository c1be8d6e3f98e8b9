"""A selector and what reads its selection: only what is selected arrives, whatever reads it."""

from pathlib import Path

import pytest
import torch

from lightning_attn.attention import AdditiveAttention, TopKSelection
from lightning_attn.encoders import CNN, BiLSTM, PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.mitigations import BernoulliShare, RandomMixing, RandomPretraining, UniformSubset, WarmStart
from lightning_attn.networks import AttentionNetwork, LinearClassifier, MaskedInputNetwork, SelectorNetwork
from lightning_attn.types import Batch, DataSchema
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
    test_value_path_is_what_the_logits_need_when_attention_is_given,
)
from tests.helpers.tiny_models import save_model, tiny_config
from tests.helpers.toy_bags import toy_bag_network, toy_bags
from tests.helpers.toys import VOCABULARY, toy_batch

READERS = {"bilstm": lambda: BiLSTM(6, 4), "cnn": lambda: CNN(6, 3)}
ATTENTIONS = {"additive": AdditiveAttention, "selection": lambda: TopKSelection(3)}


def network(reader: str = "bilstm", attention: str = "additive") -> MaskedInputNetwork:
    torch.manual_seed(0)
    made = MaskedInputNetwork(BiLSTM(6, 5, dropout=0.2), READERS[reader](), ATTENTIONS[attention](), LinearClassifier())
    made.build(DataSchema(num_classes=2, vocabulary_size=VOCABULARY))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


@pytest.fixture(params=[(reader, attention) for reader in READERS for attention in ATTENTIONS], ids="-".join)
def built(request: pytest.FixtureRequest) -> AttentionNetwork:
    return network(*request.param)


@pytest.fixture
def batch() -> Batch:
    return toy_batch([9, 4, 1, 6], seed=1)


def test_even_weights_leave_the_text_as_it_is(built: MaskedInputNetwork, batch: Batch) -> None:
    even = batch.valid / batch.valid.sum(dim=1, keepdim=True)
    read = built.reader.contextualise(built.embed(batch), batch)
    expected = built.head(built.reader.pool(read, batch.valid))
    torch.testing.assert_close(built(batch, attention=even).logits, expected)


def test_what_is_not_selected_is_not_read(batch: Batch) -> None:
    built = network(attention="selection")
    output = built(batch)
    hidden = int((output.attention[0] == 0).nonzero()[0])
    changed = batch.inputs.clone()
    changed[0, hidden] = 2 if changed[0, hidden] != 2 else 3
    other = built(batch.replace(inputs=changed), attention=output.attention)
    assert torch.equal(other.logits, output.logits)
    seen = int(output.attention[0].nonzero()[0])
    changed[0, seen] = 2 if changed[0, seen] != 2 else 3
    assert not torch.equal(built(batch.replace(inputs=changed), attention=output.attention).logits, output.logits)


def test_the_reader_knows_context(batch: Batch) -> None:
    built = network()
    first, swapped = torch.zeros(4, 9), batch.inputs.clone()
    first[:, :2] = 0.5
    first[2] = batch.valid[2] / 1
    swapped[0, 0], swapped[0, 1] = batch.inputs[0, 1], batch.inputs[0, 0]
    before, after = built(batch, attention=first).logits, built(batch.replace(inputs=swapped), attention=first).logits
    assert not torch.allclose(before[0], after[0], atol=1e-4)


def test_mitigations_work_on_it(batch: Batch) -> None:
    built = network().train()
    RandomMixing().auxiliary_loss(built(batch), batch, built).backward()
    assert built.attention.project.weight.grad is None
    assert built.reader.lstm.weight_hh_l0.grad.abs().sum() > 0
    frozen = RandomPretraining(epochs=1).lr_scales(built, 0) or RandomPretraining(epochs=1).lr_scales(built, 1)
    assert set(frozen) == {built.encoder.embedding, built.encoder.dropout, built.reader, built.head}


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="embeddings of 6 numbers, but has an embedding_size of 7"):
        MaskedInputNetwork(BiLSTM(6, 5), BiLSTM(7, 5))


SELECTORS = {
    "text": (lambda: network(attention="selection"), toy_batch),
    "picture": (lambda: toy_bag_network("patches-selector"), toy_bags),
    "bag": (lambda: toy_bag_network("bag-selector"), toy_bags),
}


@pytest.mark.parametrize(
    ("kind", "packed"), [("text", False), ("picture", False), ("picture", True), ("bag", False), ("bag", True)]
)
def test_no_gradient_comes_from_what_is_not_selected(kind: str, packed: bool) -> None:
    make, batches = SELECTORS[kind]
    built, batch = make(), batches([9, 4, 1, 6], seed=1)
    batch = batch.pack() if packed else batch
    embeddings = built.embed(batch).detach().requires_grad_()
    attention = built(batch).attention
    (gradient,) = torch.autograd.grad(built(batch, embeddings=embeddings, attention=attention).logits.sum(), embeddings)
    size = batch.unpack(gradient.flatten(2 if not packed else 1)).abs().sum(dim=-1)
    assert (size[attention == 0] == 0).all()
    assert (size[attention > 0] > 0).any()


@pytest.mark.parametrize("kind", SELECTORS)
def test_the_selector_learns_through_the_reader(kind: str) -> None:
    make, batches = SELECTORS[kind]
    built = make().train()
    output = built(batches([9, 4, 1, 6], seed=1))
    output.logits.logsumexp(dim=-1).sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in built.scorer_parameters()[:1])


def test_a_picture_without_selected_patches_is_blank_there() -> None:
    built, batch = toy_bag_network("patches-selector"), toy_bags([12, 12], seed=2)
    attention = built(batch).attention
    picture = built.reader.picture(built.embed(batch) * (attention > 0)[..., None], batch)
    logits = built.head(built.reader.layers(picture[:, None]))
    torch.testing.assert_close(built(batch).logits, logits)


def test_selections_of_every_size_stand_in_for_hard_ones() -> None:
    assert isinstance(network(attention="selection").random_counterpart, BernoulliShare)
    assert not isinstance(network().random_counterpart, BernoulliShare)
    assert isinstance(toy_bag_network("bag-selector").random_counterpart, UniformSubset)


def test_a_warm_start_reads_the_whole_text(batch: Batch) -> None:
    built = network(attention="selection")
    warm = WarmStart(epochs=1, then="finetune", finetune_rate=1.0)
    built.set_mitigation(warm)
    assert warm.lr_scales(built, 0) == {}
    built.train()
    built.encoder.dropout.p = 0.0
    seen = built(batch).logits
    states = built.reader.contextualise(built.embed(batch), batch)
    torch.testing.assert_close(seen, built.head(built.reader.pool(states, batch.valid)))
    assert set(warm.lr_scales(built, 1).values()) == {1.0}
    assert warm.phase == "learn"


def test_a_pretrained_reader_sees_special_tokens_and_replacements(tmp_path: Path, batch: Batch) -> None:
    folder = str(save_model(tmp_path / "model", tiny_config("bert", VOCABULARY)))
    built = SelectorNetwork(
        PretrainedEncoder(folder), PretrainedEncoder(folder), TopKSelection(2), blank="replacement"
    ).build(DataSchema(num_classes=2, vocabulary_size=VOCABULARY, replacement_id=4))
    built.eval()
    special = torch.zeros_like(batch.valid)
    special[:, 0] = True
    batch = batch.replace(special=special & batch.valid)
    output = built(batch)
    kept = (output.attention > 0) | batch.special | ~batch.valid
    written = batch.replace(inputs=torch.where(kept, batch.inputs, 4))
    states = built.reader.contextualise(built.embed(written), batch)
    torch.testing.assert_close(output.logits, built.head(built.reader.pool(states, batch.valid)))
    assert built.value_path()[0] is built.encoder.words
