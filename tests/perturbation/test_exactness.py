"""Every fast path of the sweep gives what reading each variant gives."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lightning_attn.attention import (
    AdditiveAttention,
    AdditiveQueryAttention,
    DotAttention,
    DotQueryAttention,
    GatedAttention,
    UniformAttention,
)
from lightning_attn.encoders import CNN, BiLSTM, TokenMLP
from lightning_attn.networks import AttentionNetwork, LinearClassifier, MLPClassifier, PairedNetwork, PooledNetwork
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.budget import Fractions, Steps
from lightning_attn.perturbation.fast_path import variant_reader
from lightning_attn.perturbation.perturbations import Delete, Pad, Replace
from lightning_attn.perturbation.pooled import PooledReader
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out, top_k_kept, top_k_removed, unperturbed
from lightning_attn.types import Batch, DataSchema
from tests.helpers.toys import VOCABULARY, toy_batch

ENCODERS = {
    "bilstm": lambda values: BiLSTM(6, 4, values=values, dropout=0.3),
    "cnn": lambda values: CNN(6, 2, kernel_sizes=(1, 3, 5), values=values, dropout=0.3),
    "narrow cnn": lambda values: CNN(6, 8, kernel_sizes=(1,), values=values),
    "average": lambda values: TokenMLP(6, 8, values=values, dropout=0.3),
}
SINGLE = {
    "additive": AdditiveAttention,
    "dot": DotAttention,
    "gated": lambda **given: GatedAttention(5, **given),
    "uniform": lambda attend_special, temperature: UniformAttention(attend_special),
}
QUERY = {
    "additive query": AdditiveQueryAttention,
    "dot query": DotQueryAttention,
    "uniform query": lambda attend_special, temperature: UniformAttention(attend_special),
}
COMBINATIONS = [
    (encoder, values, attention)
    for encoder, values in itertools.product(ENCODERS, ("contextual", "local"))
    for attention in [*SINGLE, *QUERY]
    # One kernel of width 1 is there for the windows; two attentions are enough for it.
    if encoder != "narrow cnn" or "additive" in attention
]


def network(
    encoder: str,
    values: str,
    attention: str,
    attend_special: bool = False,
    multi_label: bool = False,
    seed: int = 0,
) -> AttentionNetwork:
    torch.manual_seed(seed)
    made = ENCODERS[encoder](values)
    layer = (SINGLE | QUERY)[attention](attend_special=attend_special, temperature=0.7)
    if attention in QUERY:
        # The dot product needs a query of the keys' size.
        result: AttentionNetwork = PairedNetwork(made, BiLSTM(6, made.size // 2), layer)
    else:
        result = PooledNetwork(made, layer, MLPClassifier(5) if seed % 2 else LinearClassifier())
    result.build(DataSchema(3, multi_label=multi_label, vocabulary_size=VOCABULARY, query_vocabulary_size=VOCABULARY))
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.mul_(3)
    return result.eval()


def asked(batch: Batch, seed: int = 7) -> Batch:
    """The batch with random queries."""
    lengths = (1 + uniform(torch.tensor([seed]), len(batch))[0] * 4).int().tolist()
    query = toy_batch(lengths, seed=seed)
    return batch.replace(query=query.inputs, query_valid=query.valid)


def masks(batch: Batch, seed: int) -> Tensor:
    """Every kind of keep mask that the metrics ask for, random ones, nothing kept and everything kept."""
    length = batch.valid.shape[1]
    draws = uniform(batch.index, 5 * length, seed).view(len(batch), 5, length)
    random = draws[:, 1:] < torch.tensor([0.95, 0.7, 0.3, 0.05])[:, None]
    kinds = [
        leave_one_out(batch),
        top_k_removed(draws[:, 0], batch, Steps(3).counts(batch)),
        top_k_kept(draws[:, 0], batch, Fractions((0.1, 0.5)).counts(batch)),
        random,
        torch.zeros_like(random[:, :1]),
        unperturbed(batch),
    ]
    return torch.cat(kinds, dim=1)


@pytest.mark.parametrize(("encoder", "values", "attention"), COMBINATIONS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    padding=st.integers(0, 3),
    special=st.booleans(),
    attend_special=st.booleans(),
    multi_label=st.booleans(),
    perturbation=st.sampled_from([Delete(), Replace(), Pad()]),
    max_tokens=st.sampled_from([1, 60, 16384]),
    seed=st.integers(0, 9),
)
def test_the_fast_path_gives_what_reading_gives(
    encoder, values, attention, lengths, padding, special, attend_special, multi_label, perturbation, max_tokens, seed
):
    batch = toy_batch(lengths, seed=seed, special=special, pad_to=max(lengths) + padding)
    if attention in QUERY:
        batch = asked(batch)
    built = network(encoder, values, attention, attend_special, multi_label, seed)
    assert isinstance(variant_reader(built, perturbation), PooledReader)
    keep = masks(batch, seed)
    found = probabilities(built, batch, keep, perturbation, max_tokens)
    expected = probabilities(built, batch, keep, perturbation, fast_path=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ["bilstm", "cnn", "average"])
@pytest.mark.parametrize("perturbation", [Delete(), Replace()])
def test_long_texts_agree(encoder, perturbation):
    batch = toy_batch((70, 41, 3, 66), special=True)
    built = network(encoder, "contextual", "additive")
    keep = masks(batch, 3)
    found = probabilities(built, batch, keep, perturbation, max_tokens=2000)
    expected = probabilities(built, batch, keep, perturbation, fast_path=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_text_gives_the_same_alone_and_in_any_company():
    batch = toy_batch((7, 1, 12, 4), special=True, pad_to=15)
    for encoder in ("bilstm", "cnn", "average"):
        built = network(encoder, "contextual", "additive")
        together = probabilities(built, batch, masks(batch, 1))
        for row in range(len(batch)):
            single = batch.select(torch.tensor([row]))
            separate = probabilities(built, single, masks(single, 1))
            torch.testing.assert_close(together[row], separate[0], atol=1e-6, rtol=0)


def multiplications(built: AttentionNetwork, batch: Batch, keep: Tensor, fast_path: bool) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        probabilities(built, batch, keep, fast_path=fast_path)
    return counter.get_total_flops()


@pytest.fixture
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # The counter hooks every module itself, which is a reason for the generic path.
    monkeypatch.setattr("lightning_attn.perturbation.pooled.hooked", lambda module: False)


@pytest.mark.usefixtures("_counted")
@pytest.mark.parametrize(("encoder", "share"), [("cnn", 0.1), ("average", 0.05)])
def test_the_fast_path_does_less(encoder, share):
    batch = toy_batch((40, 40, 39))
    built = network(encoder, "contextual", "dot")
    keep = leave_one_out(batch)
    assert multiplications(built, batch, keep, True) < share * multiplications(built, batch, keep, False)


@pytest.mark.usefixtures("_counted")
def test_the_fast_path_of_an_lstm_does_half_the_steps():
    lengths = (40, 40, 39)
    batch = toy_batch(lengths)
    built = network("bilstm", "contextual", "dot")
    lstm = built.encoder.lstm
    # The counter does not look into torch's LSTM: per position and direction, four gates from input and state.
    step = 2 * 4 * lstm.hidden_size * (lstm.input_size + lstm.hidden_size)
    generic = 2 * step * sum(n * (n - 1) for n in lengths)
    assert multiplications(built, batch, leave_one_out(batch), True) < 0.5 * generic


@pytest.mark.parametrize("encoder", ["bilstm", "cnn", "average"])
def test_under_mixed_precision_the_numbers_are_those_of_full_precision(encoder):
    batch = toy_batch((9, 5, 1))
    built = network(encoder, "local", "additive")
    exact = probabilities(built, batch, leave_one_out(batch))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = probabilities(built, batch, leave_one_out(batch))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, atol=1e-6, rtol=0)


def test_under_mixed_precision_a_query_comes_in_half_precision():
    batch = asked(toy_batch((9, 5, 1)))
    built = network("cnn", "contextual", "dot query")
    exact = probabilities(built, batch, leave_one_out(batch))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = probabilities(built, batch, leave_one_out(batch))
    torch.testing.assert_close(mixed, exact, atol=0.05, rtol=0)


def test_double_precision_is_kept():
    batch = toy_batch((9, 5))
    for encoder in ("bilstm", "cnn", "average"):
        built = network(encoder, "contextual", "gated").double()
        assert isinstance(variant_reader(built, Delete()), PooledReader)
        keep = masks(batch, 0)
        found, expected = (probabilities(built, batch, keep, fast_path=way) for way in (True, False))
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_in_inference_mode_it_works_too():
    batch = toy_batch((6, 3))
    built = network("bilstm", "contextual", "additive")
    expected = probabilities(built, batch, leave_one_out(batch))
    with torch.inference_mode():
        assert torch.equal(probabilities(built, batch, leave_one_out(batch)), expected)


def test_a_training_network_is_measured_in_evaluation_mode_and_left_training():
    batch = toy_batch((6, 3))
    built = network("cnn", "local", "additive")
    expected = probabilities(built, batch, leave_one_out(batch))
    built.train()
    found = probabilities(built, batch, leave_one_out(batch))
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert all(module.training for module in built.modules())


def test_the_query_is_read_once():
    batch = asked(toy_batch((6, 3)))
    built, calls = network("bilstm", "contextual", "dot query"), []
    summarise = built.query_encoder.summarise
    built.query_encoder.summarise = lambda given: calls.append(len(given)) or summarise(given)
    assert isinstance(variant_reader(built, Delete()), PooledReader)
    probabilities(built, batch, leave_one_out(batch), max_tokens=20)
    assert calls == [2]
