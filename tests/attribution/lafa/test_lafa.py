from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_attn.attribution import KERNELS, LAFA, Lexicon, NeighbourShap, get, get_kernel
from lightning_attn.attribution.gradients import embedding_gradient
from lightning_attn.attribution.lafa import Nearest, NeighbourIndex, RandomTexts, lafa
from lightning_attn.attribution.lafa.kernels import Indicator, Rbf
from lightning_attn.data import SyntheticReviewsDataModule
from lightning_attn.encoders import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.networks import PooledNetwork
from lightning_attn.ops.randomness import uniform
from lightning_attn.types import Batch
from tests.helpers.runs import tiny_data, tiny_module
from tests.helpers.tiny_models import save_model, tiny_config
from tests.helpers.toys import alone


@pytest.fixture(scope="module")
def data() -> SyntheticReviewsDataModule:
    return tiny_data(train=80)


@pytest.fixture(scope="module")
def network(data: SyntheticReviewsDataModule) -> PooledNetwork:
    return tiny_module(data, sharpness=3.0).network.eval()  # type: ignore[return-value]


def indexed(network: PooledNetwork, data: Any, folder: Path, **arguments: Any) -> NeighbourIndex:
    return NeighbourIndex.build(network, data, folder, **arguments)


@pytest.fixture(scope="module")
def index(network: PooledNetwork, data: Any, tmp_path_factory: Any) -> NeighbourIndex:
    return indexed(network, data, tmp_path_factory.mktemp("lafa") / "index")


@pytest.fixture
def batch(data: SyntheticReviewsDataModule) -> Batch:
    return data.dataset("val")[[3, 0, 11, 7]]


def by_hand(network: PooledNetwork, index: NeighbourIndex, batch: Batch, kernel: str, base: str, **options: Any) -> Any:
    """The formula of the paper, word by word and text by text: base scores, and what is lent, both unmixed."""
    table = network.encoder.embedding.weight.detach()
    functions = {
        "rbf": lambda a, b: math.exp(-float((table[a] - table[b]).norm()) / 4),
        "cubic": lambda a, b: float(7 * table[a] @ table[b]) ** 3,
        "cosine": lambda a, b: float(torch.cosine_similarity(table[a], table[b], dim=0)),
        "laplacian": lambda a, b: math.exp(-float((table[a] - table[b]).abs().sum()) / 4),
        "inverse_clipped_distance": lambda a, b: 1 / min(max(float((table[a] - table[b]).norm()), 0.3), 3),
        "indicator": lambda a, b: float(a == b),
    }
    lent = torch.zeros(batch.valid.shape)
    for row in range(len(batch)):
        single = alone(batch, row)
        keys = network.encode(network.embed(single), single)[0][0][single.inner[0]].mean(0).detach()
        distances = (index.vectors - keys).norm(dim=1)
        order = [i for i in distances.argsort().tolist() if distances[i] <= index.cutoff(0.3)][:3]
        for place in single.inner[0].nonzero().flatten().tolist():
            for neighbour in order:
                tokens = range(int(index.offsets[neighbour]), int(index.offsets[neighbour + 1]))
                total = sum(
                    float(index.scores[k]) * functions[kernel](int(single.inputs[0, place]), int(index.tokens[k]))
                    for k in tokens
                )
                lent[row, place] += total / len(tokens) / len(order)
    return get(base, **options).attribute(network, batch), lent


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_it_is_the_formula(kernel: str, network: PooledNetwork, index: NeighbourIndex, batch: Batch) -> None:
    base, lent = by_hand(network, index, batch, kernel, "simple_gradient")
    selection = Nearest(3, quantile=0.3)
    raw = LAFA(index, get_kernel(kernel), selection, strength=0.44, mix="raw").borrow(network, batch)
    scale = lent.abs().max()
    assert scale > 0
    torch.testing.assert_close(raw.lent / scale, lent / scale, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(raw.attributions, base + 0.44 * lent, atol=1e-4 * float(scale), rtol=1e-3)
    even = LAFA(index, get_kernel(kernel), selection, strength=0.44).attribute(network, batch)
    shares = [scores / scores.abs().sum(1, keepdim=True).clamp(min=1e-30) for scores in (base, lent)]
    torch.testing.assert_close(even, shares[0] + 0.44 * shares[1], atol=1e-4, rtol=1e-3)


def test_a_signed_base_gives_signed_scores(network: PooledNetwork, data: Any, batch: Batch, tmp_path: Path) -> None:
    options = {"attention_fixed": False}
    index = indexed(network, data, tmp_path / "signed", base="gradient_x_input", options=options)
    base, lent = by_hand(network, index, batch, "indicator", "gradient_x_input", **options)
    found = LAFA(index, Indicator(), Nearest(3, quantile=0.3)).borrow(network, batch)
    assert (found.attributions < 0).any()
    assert (found.attributions > 0).any()
    torch.testing.assert_close(
        found.lent, lent / lent.abs().sum(1, keepdim=True).clamp(min=1e-30), atol=1e-5, rtol=1e-3
    )
    torch.testing.assert_close(found.base, base / base.abs().sum(1, keepdim=True), atol=1e-5, rtol=1e-3)


def test_blocks_make_no_difference(
    network: PooledNetwork, index: NeighbourIndex, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LAFA(index).attribute(network, batch)
    monkeypatch.setattr(lafa, "_COMPARED", 1)
    torch.testing.assert_close(LAFA(index).attribute(network, batch), whole)


@pytest.fixture(params=["lafa", "random texts", "lexicon", "smooth", "shap"])
def method(request: Any, network: PooledNetwork, index: NeighbourIndex, data: Any, tmp_path: Path) -> Any:
    if request.param == "smooth":
        index = indexed(network, data, tmp_path / "smooth", base="smooth_gradient", options={"samples": 3})
    return {
        "lafa": LAFA(index),
        "random texts": LAFA(index, selection=RandomTexts(5)),
        "lexicon": Lexicon(index),
        "smooth": LAFA(index),
        "shap": NeighbourShap(index, samples=6),
    }[request.param]


def test_an_example_scores_the_same_alone_and_in_a_batch(method: Any, network: PooledNetwork, batch: Batch) -> None:
    together = method.attribute(network, batch)
    assert together.shape == batch.valid.shape
    assert not together[~batch.inner].any()
    scale = together.abs().max()
    for row in range(len(batch)):
        single = method.attribute(network, alone(batch, row))
        torch.testing.assert_close(together[row, : single.shape[1]] / scale, single[0] / scale, atol=1e-4, rtol=1e-3)


def test_it_works_in_inference_mode_and_leaves_no_trace(method: Any, network: PooledNetwork, batch: Batch) -> None:
    expected = method.attribute(network, batch)
    network.train()
    with torch.inference_mode():
        found = method.attribute(network, batch.apply(torch.clone))
    assert network.training
    network.eval()
    torch.testing.assert_close(found.clone(), expected, atol=1e-6, rtol=1e-4)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network._forward_hooks


def test_the_predicted_class_is_the_default(method: Any, network: PooledNetwork, batch: Batch) -> None:
    predicted = network(batch).logits.argmax(-1)
    torch.testing.assert_close(method.attribute(network, batch, predicted), method.attribute(network, batch))


def test_a_training_text_borrows_nothing_from_itself(network: PooledNetwork, index: NeighbourIndex, data: Any) -> None:
    texts = data.dataset("train")[list(range(20))]
    found = LAFA(index, selection=Nearest(5, None)).borrow(network, texts)
    assert found.neighbours is not None
    assert found.neighbours.present.all()
    own = index.digests[found.neighbours.rows] == index.digests[torch.arange(20)][:, None]
    assert not own.any()
    assert (found.neighbours.distances.diff(dim=1) >= 0).all()


def test_texts_without_neighbours_keep_their_base_score_and_are_counted(
    network: PooledNetwork, index: NeighbourIndex, batch: Batch
) -> None:
    method = LAFA(index, selection=Nearest(5, quantile=1e-9), mix="raw")
    base = get("simple_gradient").attribute(network, batch)
    torch.testing.assert_close(method.attribute(network, batch), base)
    assert (method.texts, method.alone) == (4, 4)
    method.attribute(network, batch.select(torch.tensor([1])))
    assert (method.texts, method.alone) == (5, 5)
    even = LAFA(index, selection=Nearest(5, quantile=1e-9)).attribute(network, batch)
    torch.testing.assert_close(even, base / base.sum(1, keepdim=True))
    met = LAFA(index)
    met.attribute(network, batch)
    assert met.alone < met.texts == 4


def test_no_strength_is_the_base_score(network: PooledNetwork, index: NeighbourIndex, batch: Batch) -> None:
    base = get("simple_gradient").attribute(network, batch)
    for method in (LAFA(index, strength=0, mix="raw"), Lexicon(index, strength=0, mix="raw")):
        torch.testing.assert_close(method.attribute(network, batch), base)


def test_every_occurrence_of_a_word_is_lent_the_same(network: PooledNetwork, index: NeighbourIndex, data: Any) -> None:
    batch = data.dataset("val")[list(range(21))]
    lent = LAFA(index, Rbf(0.7)).borrow(network, batch).lent
    twice = 0
    for row in range(len(batch)):
        for word in batch.inputs[row][batch.inner[row]].unique():
            values = lent[row][(batch.inputs[row] == word) & batch.inner[row]]
            twice += len(values) > 1
            assert torch.equal(values, values[:1].expand_as(values))
    assert twice


def test_the_lexicon_adds_the_mean_of_the_word(network: PooledNetwork, index: NeighbourIndex, batch: Batch) -> None:
    unseen = batch.replace(inputs=torch.where(batch.inner & (torch.arange(batch.valid.shape[1]) == 2), 1, batch.inputs))
    found = Lexicon(index, strength=2, mix="raw").borrow(network, unseen)
    expected = torch.zeros_like(found.lent)
    for row, place in unseen.inner.nonzero().tolist():
        same = index.tokens == unseen.inputs[row, place]
        expected[row, place] = index.scores[same].mean() if same.any() else 0
    torch.testing.assert_close(found.lent, expected, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(found.attributions, found.base + 2 * expected, atol=1e-7, rtol=1e-4)
    assert found.neighbours is None


def test_shap_takes_neighbours_word_by_word(network: PooledNetwork, index: NeighbourIndex, batch: Batch) -> None:
    selection, samples = Nearest(3, None), 7
    rows = LAFA(index, selection=selection).borrow(network, batch).neighbours
    assert rows is not None
    embeddings = network.embed(batch).detach()
    target = network(batch).logits.argmax(-1)
    total = torch.zeros_like(embeddings)
    for sample in range(samples):
        reference = torch.zeros_like(embeddings)
        for row in range(len(batch)):
            neighbour = rows.rows[row, sample % 3]
            words = index.tokens[index.offsets[neighbour] : index.offsets[neighbour + 1]].tolist()
            for word, place in zip(words, batch.inner[row].nonzero().flatten().tolist(), strict=False):
                reference[row, place] = network.encoder.embedding.weight[word]
        share = uniform(batch.index, 1, sample)[:, :, None]
        point = (reference + share * (embeddings - reference)).detach().requires_grad_()
        chosen = network(batch, embeddings=point).logits.softmax(-1).gather(-1, target[:, None])
        total += torch.autograd.grad(chosen.sum(), point)[0] * (embeddings - reference)
    expected = (total / samples).square().sum(-1).masked_fill(~batch.inner, 0).detach()
    found = NeighbourShap(index, selection, samples=samples, max_tokens=50).attribute(network, batch)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


def test_shap_without_neighbours_starts_from_zero(network: PooledNetwork, index: NeighbourIndex, batch: Batch) -> None:
    found = NeighbourShap(index, Nearest(3, 1e-9), samples=4).attribute(network, batch)
    torch.testing.assert_close(found, get("gradient_shap", samples=4).attribute(network, batch))


@pytest.mark.parametrize("layer", ["keys", "hidden:0", "hidden:1", "hidden:2"])
def test_a_pretrained_encoder_lends_by_any_of_its_layers(layer: str, data: Any, tmp_path: Path) -> None:
    config = tiny_config("bert", data.schema.vocabulary_size, longest=128)
    folder = save_model(tmp_path / "model", config)
    torch.manual_seed(0)
    network = PooledNetwork(PretrainedEncoder(str(folder))).build(data.schema).eval()
    index = indexed(network, data, tmp_path / "index", layer=layer)
    texts = data.dataset("train")[[0, 5]]
    encoder = network.encoder
    assert isinstance(encoder, PretrainedEncoder)
    states = encoder.backbone(
        inputs_embeds=network.embed(texts), attention_mask=texts.valid.long(), output_hidden_states=True
    ).hidden_states[2 if layer == "keys" else int(layer[-1])]
    expected = torch.stack([states[row][texts.inner[row]].mean(0) for row in range(2)])
    torch.testing.assert_close(index.vectors[[0, 5]], expected.detach(), atol=1e-4, rtol=1e-4)
    batch = data.dataset("val")[[1, 2, 3]]
    together = LAFA(index).attribute(network, batch)
    single = LAFA(index).attribute(network, alone(batch, 1))
    torch.testing.assert_close(together[1, : single.shape[1]], single[0], atol=1e-5, rtol=1e-3)
    assert not encoder.backbone._forward_hooks
    gradient = embedding_gradient(network, batch, attention_fixed=False).gradient
    base = gradient.square().sum(-1)[batch.inner]
    torch.testing.assert_close(
        LAFA(index, strength=0, mix="raw").attribute(network, batch)[batch.inner], base, atol=1e-7, rtol=1e-3
    )


def test_layers_above_the_encoders_are_refused(data: Any, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", tiny_config("bert", data.schema.vocabulary_size))
    network = PooledNetwork(PretrainedEncoder(str(folder), layer=1)).build(data.schema).eval()
    with pytest.raises(InputError, match="uses 1 layers: choose hidden:0 to hidden:1"):
        indexed(network, data, tmp_path / "index", layer="hidden:2")


def test_the_index_of_another_network_is_refused(network: PooledNetwork, index: NeighbourIndex, batch: Batch) -> None:
    other = tiny_module(tiny_data(train=80), sharpness=2.0).network.eval()
    for method in (LAFA(index.path), Lexicon(index), NeighbourShap(index)):
        with pytest.raises(InputError, match="belongs to another checkpoint"):
            method.attribute(other, batch)
    method = LAFA(index)
    method.attribute(network, batch)
    kept = network.head.layers.bias.detach().clone()
    with torch.no_grad():
        network.head.layers.bias += 0.5
        with pytest.raises(InputError, match="belongs to another checkpoint"):
            method.attribute(network, batch)
        network.head.layers.bias.copy_(kept)
    method.attribute(network, batch)


def test_wrong_arguments_are_refused(index: NeighbourIndex, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be 0 or more, not -1"):
        LAFA(index, strength=-1)
    with pytest.raises(InputError, match="normalised or raw, not 'other'"):
        LAFA(index, mix="other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no index of neighbours at"):
        LAFA(tmp_path / "nowhere")
