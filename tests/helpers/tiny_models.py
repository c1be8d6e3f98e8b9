"""Tiny pretrained models in folders: made from a configuration, never downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from lightning_attn.networks import TransformerNetwork
from lightning_attn.types import DataSchema

KINDS = ("bert", "roberta", "distilbert", "electra", "albert")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def tiny_config(kind: str, vocabulary: int = 30, longest: int = 64) -> PretrainedConfig:
    """A configuration with two layers of 16 numbers, dropout as in the real one, for texts up to ``longest`` tokens."""
    if kind == "bert":
        return BertConfig(vocab_size=vocabulary, max_position_embeddings=longest, **SMALL)
    if kind == "roberta":  # it begins to count positions after the padding id
        positions = {"max_position_embeddings": longest + 2, "pad_token_id": 1, "type_vocab_size": 1}
        return RobertaConfig(vocab_size=vocabulary, **positions, **SMALL)
    if kind == "electra":
        return ElectraConfig(vocab_size=vocabulary, max_position_embeddings=longest, embedding_size=8, **SMALL)
    if kind == "albert":
        return AlbertConfig(vocab_size=vocabulary, max_position_embeddings=longest, embedding_size=8, **SMALL)
    return DistilBertConfig(
        vocab_size=vocabulary, max_position_embeddings=longest, dim=16, n_layers=2, n_heads=2, hidden_dim=24
    )


def save_model(folder: Path, config: PretrainedConfig, seed: int = 0) -> Path:
    """An untrained model whose weights are large enough for its states to differ clearly."""
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(10 if "embeddings" in name else 4)
    model.save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, corpus: Iterable[str], vocabulary: int = 60) -> int:
    """A WordPiece tokenizer learnt from a corpus, as BERT's; returns the number of its token ids."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, show_progress=False, special_tokens=SPECIAL)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def save_classifier(folder: Path, config: PretrainedConfig, seed: int = 0, classes: int = 3) -> Path:
    """As :func:`save_model`, with a classifier."""
    torch.manual_seed(seed)
    config.num_labels = classes
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(10 if "embeddings" in name else 4)
    model.save_pretrained(folder)
    return folder


def toy_transformer(
    kind: str = "bert", classes: int = 2, multi_label: bool = False, seed: int = 0, layers: int = 2
) -> TransformerNetwork:
    """An untrained network around a model, in evaluation mode; gradients are as large as those of a trained one."""
    torch.manual_seed(seed)
    config = tiny_config(kind)
    config.num_labels, config.num_hidden_layers = classes, layers
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(10 if "embeddings" in name else 100 if "classifier" in name else 4)
    schema = DataSchema(num_classes=classes, multi_label=multi_label, vocabulary_size=30)
    return TransformerNetwork.from_model(model.eval(), schema)
