"""Networks that judge masks: they read what a mask reveals, never what the judged network computed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.leakage import DIVERGED
from lightning_attn.mitigations.mask_classifier import mask_features
from lightning_attn.mitigations.random_attention import RandomAttention, Shuffled
from lightning_attn.ops.randomness import mix, seeded
from lightning_attn.types import Batch, DataSchema

#: From the number of a batch and the batch to the mask that an evaluator sees, shape ``(B, L)``.
Masks = Callable[[int, Batch], Tensor]


class Evaluator(nn.Module):
    """``p(y | x * m, m)``: reads the masked content and the mask itself, with embeddings of its own.

    Each position's content and place, in a text or in a picture, go through an MLP and are summed with the mask as
    weights; the mask alone, as numbers a position, goes through another and is pooled; a third reads both. What the
    evaluator can learn of the mask depends on the masks it is trained under alone: under random ones it says nothing
    about the label.

    Args:
        schema: Of the data; one label an example.
        size: Hidden units.

    Raises:
        InputError: Examples may have several labels.
    """

    def __init__(self, schema: DataSchema, size: int = 32) -> None:
        super().__init__()
        if schema.multi_label:
            raise InputError("Evaluators judge masks by the one label of an example; these data have several.")
        self.is_text = schema.feature_shape is None
        if schema.feature_shape is None:
            assert schema.vocabulary_size is not None
            self.read: nn.Module = nn.Embedding(schema.vocabulary_size, size)
        else:
            self.read = nn.Linear(torch.Size(schema.feature_shape).numel(), size)
        # The same ink says something else in another place of a picture; a line through its coordinates cannot tell.
        self.place = None if schema.grid is None else nn.Embedding(math.prod(schema.grid) + 1, size)
        self.schema = schema
        queries = schema.query_vocabulary_size
        self.read_query = None if queries is None else nn.Embedding(queries, size)
        self.content = nn.Sequential(nn.Linear(size + 1, size), nn.ReLU(), nn.Linear(size, size))
        self.mask = nn.Sequential(nn.Linear(3, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU())
        inputs = (3 if queries is None else 4) * size
        self.output = nn.Sequential(nn.Linear(inputs, size), nn.ReLU(), nn.Linear(size, schema.num_classes))

    def forward(self, batch: Batch, mask: Tensor) -> Tensor:
        """Logits, shape ``(B, C)``.

        Args:
            batch: Padded, ``inner`` where the mask may be above 0.
            mask: Weights that sum to 1 over ``inner``, shape ``(B, L)``.
        """
        mask = mask.to(next(self.parameters()).dtype)  # not every network that is judged has weights of this precision
        features = mask_features(mask, batch.inner | (mask > 0))
        words = self.read(batch.inputs if self.is_text else batch.inputs.flatten(2).to(mask))
        if self.place is not None:
            words = words + self.place(self.schema.cell(batch.inputs))
        content = self.content(torch.cat([words, features[..., 2:]], dim=-1))
        shape = self.mask(features)
        even = batch.inner / batch.inner.sum(dim=-1, keepdim=True).clamp(min=1)
        pools = [torch.einsum("bl,blh->bh", mask, content)]
        pools += [torch.einsum("bl,blh->bh", weights, shape) for weights in (mask, even)]
        if self.read_query is not None:
            assert batch.query is not None
            assert batch.query_valid is not None
            asked = batch.query_valid / batch.query_valid.sum(dim=-1, keepdim=True).clamp(min=1)
            pools.append(torch.einsum("bl,blh->bh", asked, self.read_query(batch.query)))
        return self.output(torch.cat(pools, dim=-1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Training:
    """How evaluators learn.

    Attributes:
        epochs: Passes over the training examples under random masks, at most.
        more_epochs: Passes after that, at most: under random masks for the one, under the learned ones for the other.
        rate: Learning rate of Adam.
        decay: Weight decay.
        size: Hidden units.
        seed: Of initial weights, masks and the order of batches.
    """

    epochs: int = 10
    more_epochs: int = 5
    rate: float = 3e-3
    decay: float = 1e-4
    size: int = 32
    seed: int = 0


class ContentMasks:
    """Masks that come as near to given ones as masks can in which each position's own content decides its weight.

    A word has the mean weight of its type, relative to uniform weights, and an instance with features what a linear
    regression says of them. Positions are drawn in proportion to these, and get the weights of another example's mask
    in order. Such masks reveal what the given ones do, and encode nothing.

    Args:
        schema: Of the data.
        batches: Examples, padded.
        masks: One per batch, shape ``(B, L)``.
    """

    def __init__(self, schema: DataSchema, batches: Sequence[Batch], masks: Sequence[Tensor]) -> None:
        self.is_text = schema.feature_shape is None
        relative = torch.cat(
            [
                (mask * batch.inner.sum(dim=-1, keepdim=True))[batch.inner]
                for batch, mask in zip(batches, masks, strict=True)
            ]
        ).double()
        content = torch.cat([self._content(batch)[batch.inner] for batch in batches])
        if self.is_text:
            assert schema.vocabulary_size is not None
            # One occurrence of even weight is added, so that a type that was never seen has one.
            total = relative.new_ones(schema.vocabulary_size).index_add(0, content, relative)
            count = relative.new_ones(schema.vocabulary_size).index_add(0, content, torch.ones_like(relative))
            self.weight = total / count
        else:
            square = content.mT @ content
            ridge = 1e-3 * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
            self.weight = torch.linalg.solve(square + ridge, content.mT @ relative)

    def sample(self, mask: Tensor, batch: Batch) -> Tensor:
        """Masks of other examples, ``mask`` ``(B, L)`` among them, whose weights stand where content draws them."""
        content = self._content(batch)
        weight = self.weight[content] if self.is_text else (content @ self.weight).clamp(min=1e-3)
        # Positions drawn one after the other in proportion to their weight: A has seen masks as concentrated as these.
        drawn = weight.log() - torch.empty_like(weight).exponential_().log()
        order = drawn.masked_fill(~batch.inner, -torch.inf).argsort(dim=-1, descending=True)
        profile = Shuffled().sample(mask, batch).sort(dim=-1, descending=True).values
        return torch.zeros_like(profile).scatter(-1, order, profile)

    def _content(self, batch: Batch) -> Tensor:
        if self.is_text:
            return batch.inputs
        return torch.nn.functional.pad(batch.inputs.flatten(2).double(), (0, 1), value=1.0)


class Learnt(NamedTuple):
    """Evaluators trained under the judged masks, masks of other examples, and masks of content, with these last."""

    judged: Evaluator
    control: Evaluator
    content: Evaluator
    content_masks: ContentMasks


class MaskJudge:
    """EVAL-X, and the pair of evaluators that tells whether a mask encodes the label.

    A is trained under random masks only: EVAL-X. B is A in the middle of its training, trained on under the masks to be
    judged for as long as A goes on under random ones. Both read what the mask reveals, and the mask; so where B
    predicts better on held-out examples, the label depends on the mask even given what it reveals. A third one, trained
    and judged under masks of other examples, shows how much of that is due to A not knowing such masks: those cannot
    encode anything. A fourth one, under :class:`ContentMasks`, which reveal what the judged ones do and cannot encode
    anything either, shows how much is due to A not knowing what the revealed content says: random masks seldom
    reveal the decisive words of a long text.

    A fifth of the training examples is held out, the same for all evaluators, and of each training the epoch is kept
    that predicts them best, its start among the candidates: an evaluator that has learned single texts by heart would
    say of new ones that knowing the masks does harm.

    Source: EVAL-X is of Jethani et al., AISTATS 2021, https://arxiv.org/abs/2103.01890; encoding of Puli, Nguyen and
    Ranganath, NeurIPS 2024, https://arxiv.org/abs/2411.02664. Estimator and control are ours.

    Args:
        schema: Of the data.
        batches: Training examples, padded, ``inner`` where the masks may be above 0.
        distribution: Random masks to train A under, as near to the masks to be judged as can be.
        training: How they learn; None means ``Training()``.

    Raises:
        InputError: There are no examples, or they have one class only, or several labels each.
    """

    def __init__(
        self,
        schema: DataSchema,
        batches: Sequence[Batch],
        distribution: RandomAttention,
        training: Training | None = None,
    ) -> None:
        if not batches:
            raise InputError("Evaluators need training examples, and there are none.")
        self.schema = schema
        self.batches = batches
        self.distribution = distribution
        self.training = training or Training()
        self.device = batches[0].device
        self._held = [mix(batch.index) % 5 == 0 for batch in batches]
        with seeded(self.training.seed, self.device):
            self._middle = Evaluator(schema, self.training.size).to(self.device)
        if len(torch.unique(torch.cat([batch.target for batch in batches]))) < 2:
            raise InputError("Evaluators cannot learn anything from training examples of one class.")
        self._fit(self._middle, self._random, self.training.epochs)
        self.evalx = copy.deepcopy(self._middle)
        self._fit(self.evalx, self._random, self.training.more_epochs)

    def learn(self, masks: Sequence[Tensor]) -> Learnt:
        """Evaluator B for the judged masks of the training batches, and those of the two controls.

        Args:
            masks: One per training batch, shape ``(B, L)``, finite.

        Raises:
            InputError: A mask holds NaN.
        """
        if any(not mask.isfinite().all() for mask in masks):
            raise InputError(DIVERGED)
        judged, control, content = (copy.deepcopy(self._middle) for _ in range(3))
        content_masks = ContentMasks(self.schema, self.batches, masks)
        self._fit(judged, lambda number, _: masks[number], self.training.more_epochs)
        self._fit(control, lambda number, batch: Shuffled().sample(masks[number], batch), self.training.more_epochs)
        self._fit(content, lambda number, batch: content_masks.sample(masks[number], batch), self.training.more_epochs)
        return Learnt(judged, control, content, content_masks)

    @torch.no_grad()
    def judge(self, learnt: Learnt, batch: Batch, mask: Tensor) -> dict[str, Tensor]:
        """What the evaluators say of held-out examples under their masks.

        Args:
            learnt: From :meth:`learn`.
            batch: Held-out examples.
            mask: The judged masks, shape ``(B, L)``.

        Returns:
            Logarithms of class probabilities, each of shape ``(B, C)``: ``evalx`` of A under the masks, ``random`` of A
            under random ones, ``judged`` of B under the masks; ``other`` of A and ``control`` of the third under masks
            of other examples; ``revealed`` of A and ``content`` of the fourth under masks of content.
        """
        with seeded(hash((self.training.seed, *batch.index[:1].tolist())) % 2**63, self.device):
            drawn = self.distribution.sample(mask, batch)
            other = Shuffled().sample(mask, batch)
            of_content = learnt.content_masks.sample(mask, batch)
        said = {
            "evalx": self.evalx(batch, mask),
            "random": self.evalx(batch, drawn),
            "judged": learnt.judged(batch, mask),
            "other": self.evalx(batch, other),
            "control": learnt.control(batch, other),
            "revealed": self.evalx(batch, of_content),
            "content": learnt.content(batch, of_content),
        }
        return {name: logits.log_softmax(dim=-1) for name, logits in said.items()}

    def _random(self, number: int, batch: Batch) -> Tensor:
        return self.distribution.sample(torch.zeros(batch.valid.shape, device=self.device), batch)

    def _fit(self, evaluator: Evaluator, masks: Masks, epochs: int) -> None:
        optimizer = torch.optim.Adam(
            evaluator.parameters(), lr=self.training.rate, weight_decay=self.training.decay, fused=True
        )
        # Callbacks measure within evaluation, where gradients are off, and must leave the random state as it was.
        with torch.inference_mode(False), torch.enable_grad(), seeded(self.training.seed + 1, self.device):
            best, kept = self._held_out_loss(evaluator, masks), copy.deepcopy(evaluator.state_dict())
            for _ in range(epochs):
                for number in torch.randperm(len(self.batches)).tolist():
                    batch, fitted = self.batches[number], ~self._held[number]
                    if not fitted.any():
                        continue
                    optimizer.zero_grad(set_to_none=True)
                    logits = evaluator(batch, masks(number, batch))
                    F.cross_entropy(logits[fitted], batch.target[fitted]).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                loss = self._held_out_loss(evaluator, masks)
                if loss <= best:
                    best, kept = loss, copy.deepcopy(evaluator.state_dict())
        evaluator.load_state_dict(kept)

    @torch.no_grad()
    def _held_out_loss(self, evaluator: Evaluator, masks: Masks) -> float:
        """Summed over the examples that are held out; 0 if there are none, so that the last epoch is kept then."""
        total = 0.0
        for number, (batch, held) in enumerate(zip(self.batches, self._held, strict=True)):
            if held.any():
                logits = evaluator(batch, masks(number, batch))
                total += float(F.cross_entropy(logits[held], batch.target[held], reduction="sum"))
        return total
