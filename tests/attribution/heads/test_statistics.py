"""Planted attention heads are found, and any model gets the figures of a slow reference."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer

from lightning_attn.attribution.heads import AlignedTexts, HeadStatistics, align, head_statistics
from lightning_attn.data.conllu import Parse
from lightning_attn.networks import TransformerNetwork
from tests.helpers.planted_heads import planted, save_tokenizer
from tests.helpers.tiny_models import KINDS, toy_transformer

#: Four words, "dogs" of two tokens: [CLS] the red dog ##s see [SEP].
FIRST = Parse("the red dogs see", [(0, 3), (4, 7), (8, 12), (13, 16)], [2, 2, 3, -1], ["det", "amod", "nsubj", "root"])
#: [CLS] a cat slept . [SEP]
SECOND = Parse("a cat slept .", [(0, 1), (2, 5), (6, 11), (12, 13)], [1, 2, -1, 2], ["det", "nsubj", "root", "punct"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer")).backend_tokenizer


def test_planted_heads_have_the_figures_worked_out_by_hand(tokenizer: Tokenizer) -> None:
    network = TransformerNetwork.from_model(planted([[-1, 1], [0, 2]]))
    found = head_statistics(network, align([FIRST, SECOND], tokenizer, ["nsubj", "amod", "obj"], 32))
    assert found.offset.tolist() == [[-1, 1], [0, 2]]
    assert (found.sentences, found.tokens) == (2, 9)
    # two tokens ahead of "see" and of "." there is nothing: the attention goes elsewhere
    assert found.offset_share.tolist() == [[1, 1], [1, pytest.approx(7 / 9)]]
    assert found.arcs.tolist() == [2, 1, 0]
    # nsubj: from "dog" two ahead to "see", from "cat" one ahead; amod: from "red" one ahead to "dog", two to "##s"
    assert found.hits[0].tolist() == [[[0, 1], [0, 1]], [[0, 1], [0, 1]], [[0, 0], [0, 0]]]
    # back: from "see" one back to "##s", from "slept" one back to "cat"; from "dog" one back to "red"
    assert found.hits[1].tolist() == [[[2, 0], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]]
    assert found.baseline[0, :2].tolist() == [0.5, 1]
    assert found.baseline[1, :2].tolist() == [1, 1]
    assert found.baseline_offset[:, :2].tolist() == [[1, 1], [-1, -1]]
    assert found.accuracy[0, 0].tolist() == [[0, 0.5], [0, 0.5]]
    assert found.baseline[:, 2].isnan().all()
    assert found.as_dict()["relations"]["obj"]["to_head"]["accuracy"] == [[None, None], [None, None]]


def many(count: int = 12) -> list[Parse]:
    """Sentences of 1 to 9 random words, each of which but the last depends on the next or on the first."""
    generator = torch.Generator().manual_seed(0)
    words = ["the", "red", "dogs", "see", "cat", "cats", "a", "big", "slept"]
    parses = []
    for number in range(count):
        chosen = [words[place] for place in torch.randperm(9, generator=generator)[: 1 + number % 9].tolist()]
        starts = [len(" ".join([*chosen[:place], ""])) for place in range(len(chosen))]
        heads = [place + 1 if number % 2 or place == 0 else 0 for place in range(len(chosen) - 1)] + [-1]
        relations = [("nsubj", "obj")[place % 2] for place in range(len(chosen) - 1)] + ["root"]
        spans = [(start, start + len(word)) for start, word in zip(starts, chosen, strict=True)]
        parses.append(Parse(" ".join(chosen), spans, heads, relations))
    return parses


def slow(network: TransformerNetwork, tokenizer: Tokenizer, parses: list[Parse], ignore: bool) -> dict[str, Counter]:
    """Every sentence by itself, through the model's own eager attention, token by token."""
    network.model.set_attn_implementation("eager")
    found = {name: Counter() for name in ("hits", "arcs", "offsets", "distances")}
    for parse in parses:
        encoding = tokenizer.encode(parse.text)
        special = encoding.special_tokens_mask
        with torch.no_grad():
            maps = network.model(torch.tensor([encoding.ids]), output_attentions=True).attentions
        inside = [
            [n for n, (a, b) in enumerate(encoding.offsets) if not special[n] and span[0] <= a and b <= span[1]]
            for span in parse.spans
            if span is not None
        ]
        for layer, weights in enumerate(maps):
            for head, rows in enumerate(weights[0].tolist()):
                looks = []
                for row in rows:
                    allowed = [n for n in range(len(row)) if not (ignore and special[n])]
                    looks.append(max(allowed, key=lambda n: row[n]))
                for place, look in enumerate(looks):
                    if not special[place]:
                        found["offsets"][layer, head, look - place] += 1
                for one, (relation, other) in enumerate(zip(parse.relations, parse.heads, strict=True)):
                    if relation == "root":
                        continue
                    for direction, (watched, target) in enumerate([(one, other), (other, one)]):
                        start = inside[watched][0]
                        found["hits"][direction, relation, layer, head] += looks[start] in inside[target]
                        if layer == head == 0:
                            found["arcs"][direction, relation] += 1
                            for place in inside[target]:
                                found["distances"][direction, relation, place - start] += 1
    return found


def check(found: HeadStatistics, expected: dict[str, Counter]) -> None:
    for number, relation in enumerate(found.relations):
        assert found.arcs[number] == expected["arcs"][0, relation]
        for direction in (0, 1):
            counts = {key[2]: n for key, n in expected["distances"].items() if key[:2] == (direction, relation)}
            share = max(counts.values()) / expected["arcs"][direction, relation]
            assert found.baseline[direction, number] == pytest.approx(share)
            assert counts[int(found.baseline_offset[direction, number])] == max(counts.values())
            for layer in range(found.offset.shape[0]):
                for head in range(found.offset.shape[1]):
                    hits = expected["hits"][direction, relation, layer, head]
                    assert found.hits[direction, number, layer, head] == hits
    for layer in range(found.offset.shape[0]):
        for head in range(found.offset.shape[1]):
            counts = {key[2]: n for key, n in expected["offsets"].items() if key[:2] == (layer, head)}
            assert found.offset_share[layer, head] == pytest.approx(max(counts.values()) / sum(counts.values()))
            assert counts[int(found.offset[layer, head])] == max(counts.values())


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_count_what_a_slow_reference_counts(kind: str, ignore: bool, tokenizer: Tokenizer) -> None:
    network = toy_transformer(kind)
    parses = [parse for parse in many() if len(parse.spans) > 1]
    aligned = align(parses, tokenizer, ["nsubj", "obj"], 64)
    assert len(aligned) == len(parses)
    found = head_statistics(network, aligned, max_tokens=40, ignore_special=ignore)
    again = head_statistics(network, aligned, max_tokens=10**6, ignore_special=ignore)
    for name in ("arcs", "hits", "baseline", "offset", "offset_share"):
        assert torch.equal(getattr(found, name), getattr(again, name)), name  # whatever is padded beside a sentence
    check(found, slow(network, tokenizer, parses, ignore))


def test_the_network_stays_as_it_was(tokenizer: Tokenizer) -> None:
    network = toy_transformer().train()
    before = network.model.config._attn_implementation
    aligned: AlignedTexts = align([FIRST, SECOND], tokenizer, ["nsubj"], 64)
    one, other = head_statistics(network, aligned), head_statistics(network, aligned)
    assert torch.equal(one.offset, other.offset)  # without dropout
    assert network.training
    assert network.model.config._attn_implementation == before
    assert all(parameter.grad is None for parameter in network.parameters())
