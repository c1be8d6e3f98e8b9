"""Attention before a contextual encoder keeps the contract of every network."""

import pytest
import torch

from lightning_attn.attention import AdditiveAttention, TopKSelection
from lightning_attn.encoders import CNN, BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.mitigations import RandomMixing, RandomPretraining
from lightning_attn.networks import AttentionNetwork, LinearClassifier, MaskedInputNetwork
from lightning_attn.types import Batch, DataSchema
from tests.networks.test_contract import (  # collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,  # noqa: F401
    test_attention_is_a_distribution_over_valid,  # noqa: F401
    test_evaluation_is_deterministic,  # noqa: F401
    test_handing_back_the_attention_reproduces_the_logits,  # noqa: F401
    test_handing_back_the_embeddings_reproduces_the_logits,  # noqa: F401
    test_value_path_is_what_the_logits_need_when_attention_is_given,  # noqa: F401
)
from tests.toys import VOCABULARY, toy_batch

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
