"""Tiny seeded pairs of a text and a query, and networks that read them."""

from __future__ import annotations

import torch

from lightning_attn.attention import AdditiveQueryAttention, DotQueryAttention, QueryAttention
from lightning_attn.encoders import CNN, BiLSTM, Encoder, TokenMLP
from lightning_attn.networks import PairClassifier, PairedNetwork
from lightning_attn.types import Batch, DataSchema
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=3, vocabulary_size=30, query_vocabulary_size=30)
ENCODERS = {
    "bilstm": lambda values: BiLSTM(8, 6, values=values, dropout=0.3),
    "cnn": lambda values: CNN(8, 3, values=values, dropout=0.3),
    "average": lambda values: TokenMLP(8, 12, values=values, dropout=0.3),
}
ATTENTIONS = {"additive": lambda: AdditiveQueryAttention(attend_special=True), "dot": DotQueryAttention}


def network(encoder: Encoder, query_encoder: Encoder, attention: QueryAttention, sharpness: float = 1) -> PairedNetwork:
    torch.manual_seed(0)
    built = PairedNetwork(encoder, query_encoder, attention, PairClassifier(dropout=0.2)).build(SCHEMA).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(sharpness)
    return built


def paired(name: str, attention: str = "additive", values: str = "contextual", sharpness: float = 3) -> PairedNetwork:
    return network(ENCODERS[name](values), ENCODERS[name]("contextual"), ATTENTIONS[attention](), sharpness)


def pairs(lengths: tuple[int, ...] = (9, 4, 1, 6), asked: tuple[int, ...] = (3, 5, 2, 1)) -> Batch:
    text, query = toy_batch(lengths, seed=1, classes=3), toy_batch(asked, seed=2)
    return text.replace(query=query.inputs, query_valid=query.valid)
