"""Texts followed by default tokens, and a content-free network that reads them."""

from __future__ import annotations

import torch

from lightning_attn.attention import AdditiveAttention
from lightning_attn.encoders import BiLSTM
from lightning_attn.networks import ContentFreeNetwork
from lightning_attn.types import Batch, DataSchema
from tests.helpers.toys import VOCABULARY, toy_batch

K = 4
SCHEMA = DataSchema(num_classes=2, vocabulary_size=VOCABULARY + K, default_tokens=K)


def with_defaults(lengths=(7, 1, 12, 4), seed: int = 0) -> Batch:
    """Texts of these lengths, each followed by the default tokens."""
    text = toy_batch(lengths, seed)
    width = text.valid.shape[1] + K
    inputs, special = torch.zeros(len(lengths), width, dtype=torch.int64), torch.zeros(len(lengths), width).bool()
    for row, length in enumerate(lengths):
        inputs[row, :length] = text.inputs[row, :length]
        inputs[row, length : length + K] = VOCABULARY + torch.arange(K)
        special[row, length : length + K] = True
    return text.replace(inputs=inputs, special=special, valid=torch.arange(width) < torch.tensor(lengths)[:, None] + K)


def built(seed: int = 0) -> ContentFreeNetwork:
    torch.manual_seed(seed)
    network = ContentFreeNetwork(BiLSTM(8, 5), AdditiveAttention(6)).build(SCHEMA)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network.eval()
