"""Whatever a fast path does not repeat exactly is read from the first token to the last."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_attn.attention import AdditiveAttention, AdditiveQueryAttention, DotAttention
from lightning_attn.encoders import CNN, BiLSTM, TokenMLP
from lightning_attn.networks import PairedNetwork, PooledNetwork
from lightning_attn.perturbation.fast_path import variant_reader
from lightning_attn.perturbation.perturbations import Delete, Overwrite, Replace
from lightning_attn.perturbation.pooled import PooledReader
from lightning_attn.perturbation.reader import FullReader
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out
from lightning_attn.types import DataSchema
from tests.helpers.toys import VOCABULARY, toy_batch


def built(encoder=None, attention=None, kind=PooledNetwork):
    torch.manual_seed(0)
    network = kind(encoder or TokenMLP(6, 8), attention=attention)
    network.build(DataSchema(2, vocabulary_size=VOCABULARY, query_vocabulary_size=VOCABULARY))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network.eval()


def reads(network, perturbation=None) -> bool:
    """Whether it takes the generic path; checks the numbers as well."""
    batch = toy_batch((7, 3, 1))
    if isinstance(network, PairedNetwork):
        query = toy_batch((2, 3, 1), seed=5)
        batch = batch.replace(query=query.inputs, query_valid=query.valid)
    keep = leave_one_out(batch)
    found = probabilities(network, batch, keep, perturbation)
    expected = probabilities(network, batch, keep, perturbation, fast_path=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    reader = variant_reader(network, perturbation or Delete())
    assert isinstance(reader, (FullReader, PooledReader))
    return isinstance(reader, FullReader)


class _ReversedBiLSTM(BiLSTM):
    def contextualise(self, embeddings, batch):
        return super().contextualise(embeddings, batch).flip(-1) * 2


class _SquaredCNN(CNN):
    def contextualise(self, embeddings, batch):
        return super().contextualise(embeddings, batch) ** 2


class _CountingAverage(TokenMLP):
    def contextualise(self, embeddings, batch):
        return super().contextualise(embeddings, batch).cumsum(dim=1)


class _PositionalBiLSTM(BiLSTM):
    def embed(self, batch):
        return super().embed(batch) * torch.arange(1, batch.inputs.shape[1] + 1)[:, None]


class _MixingCNN(CNN):
    def forward(self, embeddings, batch):
        keys, values = super().forward(embeddings, batch)
        return keys, values + keys.mean(dim=1, keepdim=True)


class _DeepBiLSTM(BiLSTM):
    def __init__(self):
        super().__init__(6, 4)
        self.lstm = nn.LSTM(6, 4, num_layers=2, batch_first=True, bidirectional=True)


class _DilatedCNN(CNN):
    def __init__(self):
        super().__init__(6, 4, (3,))
        self.convolutions = nn.ModuleList([nn.Conv1d(6, 4, 3, padding=2, dilation=2)])


class _RunningAverage(TokenMLP):
    class Sum(nn.Module):
        def forward(self, embeddings):
            return embeddings.cumsum(dim=1)

    def __init__(self):
        super().__init__(6, 6)
        self.projection = self.Sum()


class _NormedCNN(CNN):
    def __init__(self):
        super().__init__(6, 4, (3,))
        weight_norm(self.convolutions[0])


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: _ReversedBiLSTM(6, 4),
        lambda: _SquaredCNN(6, 2),
        lambda: _CountingAverage(6, 8),
        lambda: _PositionalBiLSTM(6, 4),
        lambda: _MixingCNN(6, 2),
        _DeepBiLSTM,
        _DilatedCNN,
        _RunningAverage,
        _NormedCNN,
    ],
)
def test_a_changed_encoder_is_read(encoder):
    assert reads(built(encoder()))


class EmbeddingNetwork(PooledNetwork):
    def embed(self, batch):
        return super().embed(batch) + batch.valid.sum(dim=1)[:, None, None]


class EncodingNetwork(PooledNetwork):
    def encode(self, embeddings, batch):
        keys, values = super().encode(embeddings, batch)
        return keys, values.cumsum(dim=1)


class ClassifyingNetwork(PooledNetwork):
    def classify(self, values, attention, batch):
        return super().classify(values, attention, batch) * batch.valid.sum(dim=1)[:, None]


class ForwardNetwork(PooledNetwork):
    def forward(self, batch, *, embeddings=None, attention=None):
        output = super().forward(batch, embeddings=embeddings, attention=attention)
        output.logits = output.logits + output.attention.amax(dim=1)[:, None] * torch.tensor([1.0, 0.0])
        return output


class ClassifyingPair(PairedNetwork):
    def classify(self, values, attention, batch):
        return super().classify(values, attention, batch) * batch.valid.sum(dim=1)[:, None]


@pytest.mark.parametrize(
    "kind", [EmbeddingNetwork, EncodingNetwork, ClassifyingNetwork, ForwardNetwork, ClassifyingPair]
)
def test_a_changed_network_is_read(kind):
    assert reads(built(kind=kind))


class SmoothedAttention(AdditiveAttention):
    def score(self, keys):
        scores = super().score(keys)
        return scores + scores.mean(dim=-1, keepdim=True) * torch.linspace(0, 1, scores.shape[-1])


class SparseAttention(DotAttention):
    def forward(self, keys, batch):
        scores, learned, _ = super().forward(keys, batch)
        halved = learned * (learned >= learned.amax(dim=-1, keepdim=True) / 2)
        return scores, halved, halved


class LengthAttention(DotAttention):
    def raw_scores(self, keys, batch):
        return super().raw_scores(keys, batch) * batch.valid.sum(dim=1, keepdim=True)


class MixingAttention(AdditiveAttention):
    def make_layers(self, key_size):
        super().make_layers(key_size)
        self.project = nn.Sequential(self.project, _RunningAverage.Sum())


class LengthQueryAttention(AdditiveQueryAttention):
    def score(self, keys, query):
        return super().score(keys, query) * keys.shape[1]


@pytest.mark.parametrize("attention", [SmoothedAttention, SparseAttention, LengthAttention, MixingAttention])
def test_a_changed_attention_is_read(attention):
    assert reads(built(attention=attention()))


def test_a_changed_query_attention_is_read():
    assert reads(built(attention=LengthQueryAttention(), kind=PairedNetwork))


def test_a_method_exchanged_on_the_object_is_noticed():
    network = built()
    classify = network.classify
    network.classify = lambda values, attention, batch: 2 * classify(values, attention, batch)
    assert reads(network)
    network = built(CNN(6, 2))
    contextualise = network.encoder.contextualise
    network.encoder.contextualise = lambda embeddings, batch: contextualise(embeddings, batch) + 1
    assert reads(network)
    network = built()
    score = network.attention.score
    network.attention.score = lambda keys: score(keys) * 2
    assert reads(network)


@pytest.mark.parametrize("place", ["", "encoder", "encoder.embedding", "attention.project", "head.layers"])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_forward_hooks_are_heard(place, register):
    network, calls = built(), []
    hook = getattr(network.get_submodule(place), register)(lambda *arguments: calls.append(arguments))
    assert reads(network)
    assert calls
    hook.remove()
    assert not reads(network)


def test_global_forward_hooks_are_heard():
    with nn.modules.module.register_module_forward_hook(lambda *arguments: None):
        assert reads(built())
    assert not reads(built())


class Repeat(Delete):
    def apply(self, batch, keep, schema):
        return super().apply(batch.replace(inputs=batch.inputs.flip(0)), keep, schema)


class Seven(Overwrite):
    def content(self, schema):
        return 7


def test_a_changed_perturbation_is_applied():
    assert reads(built(), Repeat())
    assert not reads(built(), Seven())
    replaced = Replace()
    replaced.apply = Repeat().apply
    assert reads(built(), replaced)


def test_half_precision_is_read():
    network = built().bfloat16()
    assert isinstance(variant_reader(network, Delete()), FullReader)


class Named(PooledNetwork):
    """A subclass that changes nothing that matters here."""

    def value_path(self):
        return [self.encoder]


def test_what_changes_nothing_keeps_the_fast_path():
    assert not reads(built(kind=Named))
    assert not reads(built(BiLSTM(6, 4)))
    assert not reads(built(kind=PairedNetwork))
