"""Transformers whose attention heads look where they were built to look, and sentences to read with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel, PreTrainedTokenizerFast

from tests.helpers.tiny_models import SPECIAL

#: "the red dogs don't see cats ." and "a big cat slept", the second one twice; "dogs" is two tokens, "don't" two words.
CONLLU = """\
# sent_id = 1
# text = the red dogs don't see cats.
1\tthe\tthe\tDET\tDT\t_\t3\tdet\t_\t_
2\tred\tred\tADJ\tJJ\t_\t3\tamod\t_\t_
3\tdogs\tdog\tNOUN\tNNS\t_\t6\tnsubj\t_\t_
4-5\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
4\tdo\tdo\tAUX\tVBP\t_\t6\taux\t_\t_
5\tn't\tnot\tPART\tRB\t_\t6\tadvmod\t_\t_
6\tsee\tsee\tVERB\tVB\t_\t0\troot\t_\t_
7\tcats\tcat\tNOUN\tNNS\t_\t6\tobj\t_\tSpaceAfter=No
8\t.\t.\tPUNCT\t.\t_\t6\tpunct\t_\t_

# sent_id = 2
1\ta\ta\tDET\tDT\t_\t3\tdet\t_\t_
2\tbig\tbig\tADJ\tJJ\t_\t3\tamod\t_\t_
3\tcat\tcat\tNOUN\tNN\t_\t4\tnsubj\t_\t_
3.1\tand\tand\tCCONJ\tCC\t_\t_\t_\t_\t_
4\tslept\tsleep\tVERB\tVBD\t_\t0\troot\t_\t_

# sent_id = 3
1\ta\ta\tDET\tDT\t_\t3\tdet\t_\t_
2\tbig\tbig\tADJ\tJJ\t_\t3\tamod\t_\t_
3\tcat\tcat\tNOUN\tNN\t_\t4\tnsubj\t_\t_
4\tslept\tsleep\tVERB\tVBD\t_\t0\troot\t_\t_
"""

PIECES = ["the", "red", "dog", "##s", "don", "'", "t", "see", "cat", ".", "a", "big", "slept"]
_FREQUENCIES = (0.09, 0.37, 0.71, 1.13)


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """WordPiece of :data:`PIECES`, split as BERT splits: "don't" is "don", "'", "t"."""
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate([*SPECIAL, *PIECES])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    folder.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(folder)
    return made


def planted(offsets: Sequence[Sequence[int]], longest: int = 32) -> PreTrainedModel:
    """A BERT whose attention head m of layer l looks ``offsets[l][m]`` tokens ahead, whatever the words are.

    Positions are points on four circles, and a query is its position turned on by the offset. Everything that is
    written back is 0, so that every layer reads the same.
    """
    heads, size = len(offsets[0]), 2 * len(_FREQUENCIES)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(PIECES),
        hidden_size=size * heads,
        num_hidden_layers=len(offsets),
        num_attention_heads=heads,
        intermediate_size=4,
        max_position_embeddings=longest,
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        bert = model.bert
        bert.embeddings.word_embeddings.weight.zero_()
        bert.embeddings.token_type_embeddings.weight.zero_()
        angles = torch.arange(longest)[:, None] * torch.tensor(_FREQUENCIES)
        circle = torch.cat([angles.cos(), angles.sin()], dim=-1)
        # Every second copy is negative, so that the mean is 0 and layer norms change nothing but the scale.
        # Adding 0 makes -0 plain, which a step of an optimiser would do too.
        bert.embeddings.position_embeddings.weight.copy_(torch.cat([circle, -circle] * (heads // 2), dim=-1) + 0)
        for layer, row in zip(bert.encoder.layer, offsets, strict=True):
            attention = layer.attention.self
            attention.key.weight.copy_(torch.eye(size).repeat(heads, heads) * _signs(heads, size))
            turned = torch.cat([_turn(offset) for offset in row]).repeat(1, heads) * _signs(heads, size)
            attention.query.weight.copy_(50 * turned)
            for part in (attention.key, attention.query, layer.attention.output.dense, layer.output.dense):
                part.bias.zero_()
            layer.attention.output.dense.weight.zero_()
            layer.output.dense.weight.zero_()
    return model.eval()


def planted_words(pairs: Sequence[Mapping[str, str]]) -> PreTrainedModel:
    """A BERT of one layer whose attention head m looks from each word of ``pairs[m]`` to the word given there.

    Wherever it stands: a word is a direction of its own, positions are 0. Other words look at all alike.
    """
    known = [*SPECIAL, *PIECES]
    size, heads = 2 * len(known), len(pairs)
    config = BertConfig(
        vocab_size=len(known),
        hidden_size=size * heads,
        num_hidden_layers=1,
        num_attention_heads=heads,
        intermediate_size=4,
        max_position_embeddings=32,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        embeddings, attention = model.bert.embeddings, model.bert.encoder.layer[0].attention.self
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        one = torch.eye(len(known))
        embeddings.word_embeddings.weight.copy_(torch.cat([one, -one] * heads, dim=-1))  # of mean 0
        attention.key.weight.copy_(torch.eye(size).repeat(heads, heads))
        attention.query.weight.zero_()
        for head, looks in enumerate(pairs):
            for watched, other in looks.items():
                attention.query.weight[head * size + known.index(other), known.index(watched)] = 50
        attention.key.bias.zero_()
        attention.query.bias.zero_()
    return model.eval()


def _signs(heads: int, size: int) -> Tensor:
    """Undoes the negative copies, shape ``(heads * size, heads * size)``."""
    one = torch.cat([torch.ones(size), -torch.ones(size)]).repeat(heads // 2)
    return one.expand(heads * size, -1)


def _turn(offset: int) -> Tensor:
    """Turns a point on the circles on by so many positions, shape ``(8, 8)``."""
    angles = offset * torch.tensor(_FREQUENCIES)
    cos, sin = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])
