"""What ``benchmarks.attention_suite`` compares with: the published procedures as plain loops, and other packages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_attn.networks import AttentionNetwork
from lightning_attn.types import Batch


def cut(one: Batch) -> Batch:
    """A batch of one example without its padding."""
    length = int(one.valid.sum())
    return one.apply(lambda tensor: tensor[:, :length] if tensor.dim() > 1 else tensor)


def together(examples: Sequence[Batch]) -> Batch:
    """Examples of any lengths as one batch, without evidence."""
    width = max(one.valid.shape[1] for one in examples)

    def column(name: str) -> Tensor:
        parts = [getattr(one, name) for one in examples]
        if parts[0].dim() > 1:
            parts = [torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts]
        return torch.cat(parts)

    return Batch(**{name: column(name) for name in ("inputs", "valid", "special", "target", "index")})


@torch.no_grad()
def by_position(network: AttentionNetwork, examples: Sequence[Batch]) -> list[Tensor]:
    """Leave-one-out as described: one forward pass per position; the drop of the predicted class's probability."""
    result = []
    for one in examples:
        full = network.schema.probabilities(network(one).logits)[0]
        target = int(full.argmax())
        drops = []
        for position in range(one.valid.shape[1]):
            kept = [other for other in range(one.valid.shape[1]) if other != position] or [0]
            shorter = dataclasses.replace(
                one, inputs=one.inputs[:, kept], valid=one.valid[:, kept], special=one.special[:, kept], evidence=None
            )
            if one.valid.shape[1] == 1:
                shorter = shorter.replace(valid=torch.zeros_like(shorter.valid))
            drops.append(full[target] - network.schema.probabilities(network(shorter).logits)[0, target])
        result.append(torch.stack(drops))
    return result


@torch.no_grad()
def permutation_loop(network: AttentionNetwork, examples: Sequence[Batch], permutations: int) -> Tensor:
    """Median change of the output, one ``classify`` an example and permutation; shape ``(examples,)``."""
    generator = torch.Generator().manual_seed(0)
    medians = []
    for one in examples:
        output = network(one)
        full = network.schema.probabilities(output.logits)
        changes = []
        for _ in range(permutations):
            order = torch.randperm(one.valid.shape[1], generator=generator)
            logits = network.classify(output.values, output.attention[:, order], one)
            changes.append((network.schema.probabilities(logits) - full).abs().sum() / 2)
        median = torch.stack(changes).quantile(0.5)
        medians.append(median if one.valid.shape[1] > 1 else median.new_tensor(torch.nan))
    return torch.stack(medians)


def adversarial_loop(network: AttentionNetwork, examples: Sequence[Batch], adversaries: int, steps: int) -> Tensor:
    """Largest divergence among adversaries that keep the output, example by example; shape ``(examples,)``.

    Source: Jain and Wallace, NAACL 2019, section 4.2.2, with the constants of their code.
    """
    torch.manual_seed(0)
    found = []
    for one in examples:
        with torch.no_grad():
            output = network(one)
        full = network.schema.probabilities(output.logits)
        rows = one.apply(lambda tensor: tensor.repeat_interleave(adversaries, dim=0))
        values = output.values.repeat_interleave(adversaries, dim=0)
        logits = torch.rand(adversaries, one.valid.shape[1]).log() + 3 * torch.randn(adversaries, one.valid.shape[1])
        logits.requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.01, amsgrad=True)
        for _ in range(steps):
            weights = logits.softmax(dim=-1)
            change = (network.schema.probabilities(network.classify(values, weights, rows)) - full).abs().sum(dim=-1)
            pairs = divergence(weights[:, None], weights[None]).mean()
            loss = (500 * (change - 0.01).relu() - divergence(weights, output.attention)).sum() - pairs
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            weights = logits.softmax(dim=-1)
            change = (network.schema.probabilities(network.classify(values, weights, rows)) - full).abs().sum(
                dim=-1
            ) / 2
            best = divergence(weights, output.attention).masked_fill(change > 0.05, 0.0).max()
        found.append(best if one.valid.shape[1] > 1 else best.new_tensor(torch.nan))
    return torch.stack(found)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats over the last dimension."""
    middle = ((p + q) / 2).clamp_min(1e-30).log()
    return sum((r * (r.clamp_min(1e-30).log() - middle)).sum(dim=-1) for r in (p, q)) / 2  # type: ignore[return-value]


def hugging_face(network: AttentionNetwork) -> tuple[Any, Any]:
    """The network as a model of Transformers, and a tokenizer that reads :func:`as_texts`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
    from transformers.modeling_outputs import SequenceClassifierOutput

    class WordsForSequenceClassification(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            self.network = network
            self.post_init()

        def _init_weights(self, module: Any) -> None:
            """Leave the trained weights as they are."""

        def get_input_embeddings(self) -> Any:
            return self.network.encoder.embedding

        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any) -> Any:
            valid = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            nothing = torch.zeros(len(input_ids), dtype=torch.int64)
            batch = Batch(input_ids, valid.bool(), torch.zeros_like(valid).bool(), nothing, nothing)
            return SequenceClassifierOutput(logits=self.network(batch).logits)

    size = network.schema.vocabulary_size
    assert size is not None
    tokenizer = Tokenizer(models.WordLevel({word(number): number for number in range(size)}, unk_token=word(1)))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=word(0), unk_token=word(1), mask_token=word(1))
    model = WordsForSequenceClassification(
        PretrainedConfig(vocab_size=size, pad_token_id=0, num_labels=network.schema.num_classes)
    )
    return model.eval(), fast


def word(number: int) -> str:
    """How a token id is written; those of padding and of the unknown word must not be part of another."""
    return {0: "[PAD]", 1: "[UNK]"}.get(number, f"w{number}")


def as_texts(examples: Sequence[Batch]) -> list[str]:
    """The token ids as words."""
    return [" ".join(map(word, one.inputs[0].tolist())) for one in examples]


def targets(network: AttentionNetwork, examples: Sequence[Batch]) -> list[int]:
    """The predicted classes."""
    with torch.no_grad():
        return [int(network(one).logits.argmax()) for one in examples]


def by_interpreto(network: AttentionNetwork, examples: Sequence[Batch]) -> list[Tensor]:
    """Occlusion of interpreto, token by token replaced by the unknown word."""
    from interpreto import Granularity, Occlusion
    from interpreto.attributions import InferenceModes

    model, tokenizer = hugging_face(network)
    explainer = Occlusion(
        model, tokenizer, batch_size=64, granularity=Granularity.ALL_TOKENS, inference_mode=InferenceModes.SOFTMAX
    )
    found = explainer(as_texts(examples), torch.tensor(targets(network, examples)))
    return [one.attributions.reshape(-1) for one in found]


def by_ferret(network: AttentionNetwork, examples: Sequence[Batch]) -> list[Tensor]:
    """Leave-one-out as a measure of ferret computes it: tokens deleted, the rest written out and tokenised again."""
    from ferret import TauLOO_Evaluation
    from ferret.model_utils import ModelHelper

    model, tokenizer = hugging_face(network)
    evaluation = TauLOO_Evaluation(model, tokenizer)
    evaluation.helper = ModelHelper(model, tokenizer)
    found = []
    for text, target in zip(as_texts(examples), targets(network, examples), strict=True):
        found.append(-evaluation.compute_leave_one_out_occlusion(text, target=target, remove_first_last=False))
    return found
