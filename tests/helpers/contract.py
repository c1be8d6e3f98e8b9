"""The invariants of `AttentionNetwork`, for a module's own fixtures `built` and `batch`: import those that hold."""

import torch

from lightning_attn.networks import AttentionNetwork
from lightning_attn.types import Batch


def test_an_example_gives_the_same_alone_and_padded(built: AttentionNetwork, batch: Batch) -> None:
    together = built(batch)
    for row in range(len(batch)):
        length = int(batch.valid[row].sum())
        alone = built(batch.select(torch.tensor([row])).apply(lambda t, n=length: t[:, :n] if t.dim() > 1 else t))
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.attention[0], together.attention[row, :length], atol=1e-5, rtol=1e-5)


def test_attention_is_a_distribution_over_valid(built: AttentionNetwork, batch: Batch) -> None:
    attention = built(batch).attention
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(len(batch)))
    assert (attention >= 0).all()
    assert (attention[~batch.valid] == 0).all()


def test_handing_back_the_attention_reproduces_the_logits(built: AttentionNetwork, batch: Batch) -> None:
    output = built(batch)
    torch.testing.assert_close(built(batch, attention=output.attention).logits, output.logits)
    torch.testing.assert_close(built.classify(output.values, output.attention, batch), output.logits)


def test_handing_back_the_embeddings_reproduces_the_logits(built: AttentionNetwork, batch: Batch) -> None:
    output, embeddings = built(batch), built.embed(batch)
    torch.testing.assert_close(built(batch, embeddings=embeddings).logits, output.logits)
    torch.testing.assert_close(output.embeddings, embeddings)
    torch.testing.assert_close(output.keys, built.encode(embeddings, batch)[0])


def test_mixed_precision_gives_a_distribution_too(built: AttentionNetwork, batch: Batch) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        attention = built(batch).attention
    torch.testing.assert_close(attention.float().sum(dim=-1), torch.ones(len(batch)), atol=2e-2, rtol=0)
    assert (attention[~batch.valid] == 0).all()


def test_evaluation_is_deterministic(built: AttentionNetwork, batch: Batch) -> None:
    assert torch.equal(built(batch).logits, built(batch).logits)


def test_value_path_is_what_the_logits_need_when_attention_is_given(built: AttentionNetwork, batch: Batch) -> None:
    uniform = batch.inner / batch.inner.sum(dim=-1, keepdim=True)
    built(batch, attention=uniform).logits.sum().backward()
    reached = {name for name, parameter in built.named_parameters() if parameter.grad is not None}
    path = {id(parameter) for module in built.value_path() for parameter in module.parameters()}
    assert reached == {name for name, parameter in built.named_parameters() if id(parameter) in path}
