"""Key instances: what is ranked, removal of instances, and pooled metrics as torchmetrics classes.

Means over bags are an :class:`ExampleMean` of what :func:`instance_measures` gives.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.erasure import explained
from lightning_attn.metrics.functional.instances import aopc_r, log_weights
from lightning_attn.metrics.functional.leakage import DIVERGED
from lightning_attn.metrics.functional.plausibility import evidence_of, known_evidence
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.multihead_bags import ClassBagNetwork
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.ops.randomness import uniform
from lightning_attn.perturbation.budget import Steps
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import top_k_removed
from lightning_attn.types import AttentionOutput, Batch


def class_log_weights(network: AttentionNetwork, output: AttentionOutput, batch: Batch, classes: Tensor) -> Tensor:
    """Logarithm of the attention that speaks for given classes; of the attention itself, if it speaks for none.

    Args:
        network: A :class:`ClassBagNetwork` has one attention a class; every other network one for all.
        output: What it made of the batch.
        batch: B bags.
        classes: Indices, shape ``(B,)``; or several a bag, 0 or 1 in each of C columns, shape ``(B, C)``, whose
            attentions are averaged. A bag with none of them gets the mean over all.

    Returns:
        Shape ``(B, L)``, float64; see :func:`log_weights`.
    """
    if not isinstance(network, ClassBagNetwork) or output.head_scores is None:
        return log_weights(output.scores, batch.inner)
    each = log_weights(output.head_scores, batch.inner[:, None])
    chosen = classes > 0 if classes.dim() == 2 else one_hot(classes, each.shape[1]).bool()
    chosen = chosen | ~chosen.any(dim=1, keepdim=True)
    total = each.masked_fill(~chosen[..., None], -torch.inf).logsumexp(dim=1)
    return total - chosen.sum(dim=1, keepdim=True).double().log()


def instance_aopc_r(
    network: AttentionNetwork, batch: Batch, orders: int = 10, seed: int = 0, max_tokens: int = 16384
) -> Tensor:
    """:func:`aopc_r` of the attention: instances are deleted in its order, ninth by ninth of the bag.

    The published curve removes one instance after the other; ninths make the cost independent of the size of the bag.

    Args:
        network: Built network.
        batch: B bags.
        orders: R, random orders; 10 as in the code published with the source.
        seed: Of the random orders, together with ``Batch.index``.
        max_tokens: See :func:`lightning_attn.perturbation.sweep.probabilities`.

    Returns:
        Of the class predicted for the whole bag, shape ``(B,)``, in [-1, 1]; NaN for bags of one instance.

    Raises:
        InputError: ``orders`` is below 1.
    """
    if orders < 1:
        raise InputError(f"AOPC-R needs at least 1 random order, not {orders}.")
    batch = batch.padded().replace(evidence=None)
    with torch.no_grad(), evaluating(network):
        output = network(batch)
    target = output.logits.argmax(dim=-1)
    rankings = [class_log_weights(network, output, batch, target)]
    rankings += [uniform(batch.index, batch.valid.shape[1], seed * orders + number) for number in range(orders)]
    counts = Steps().counts(batch)
    keep = torch.cat([top_k_removed(ranking, batch, counts) for ranking in rankings], dim=1)
    without = explained(probabilities(network, batch, keep, max_tokens=max_tokens), target)
    without = without.view(len(batch), 1 + orders, counts.shape[1])
    return aopc_r(without[:, 0], without[:, 1:]).masked_fill(batch.inner.sum(dim=1) < 2, torch.nan)


class PooledInstances(Metric):
    """Ranks the instances of all bags together, by ``a_i n``: weights shrink with the size of the bag.

    All bags count, also those without a key; a bag that arrives twice, on whatever process, counts once.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    score: list[Tensor] | Tensor
    key: list[Tensor] | Tensor
    index: list[Tensor] | Tensor
    size: list[Tensor] | Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("score", "key", "index", "size"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._seed()

    def _seed(self) -> None:
        """Empty tensors: a process without bags must gather the right dtypes."""
        self.score = [torch.empty(0, device=self.device)]
        self.key = [torch.empty(0, dtype=torch.uint8, device=self.device)]
        self.index = [torch.empty(0, dtype=torch.int64, device=self.device)]
        self.size = [torch.empty(0, dtype=torch.int64, device=self.device)]

    def reset(self) -> None:
        """Forget all bags."""
        # The base class clears lists in place; after a synchronised compute they may still be tensors.
        self.score, self.key, self.index, self.size = [], [], [], []
        super().reset()
        self._seed()

    def update(self, logs: Tensor, batch: Batch) -> None:
        """Add a batch.

        Args:
            logs: Logarithm of the weights, see :func:`log_weights`, shape ``(B, L)``.
            batch: Its evidence says which instances are key; those where it is NaN do not count.

        Raises:
            InputError: The data have no evidence, or a weight is NaN.
        """
        assert isinstance(self.score, list)
        assert isinstance(self.key, list)
        assert isinstance(self.index, list)
        assert isinstance(self.size, list)
        keys, known = known_evidence(evidence_of(batch), batch.inner)
        scores = logs.detach() + batch.inner.sum(dim=-1, keepdim=True).double().log()
        if scores[known].isnan().any():
            raise InputError(DIVERGED)
        lowest = torch.finfo(torch.float32).min
        self.score.append(scores[known].clamp(min=lowest).to(self.device, torch.float32))
        self.key.append(keys[known].to(self.device, torch.uint8))
        self.index.append(batch.index.to(self.device))
        self.size.append(known.sum(dim=-1).to(self.device))

    def compute(self) -> Tensor:
        """The figure, a scalar in [0, 1]; NaN unless there are keys and others."""
        index, size = dim_zero_cat(self.index).cpu(), dim_zero_cat(self.size).cpu()
        # The first time that each bag was seen.
        order = index.argsort(stable=True)
        new = torch.ones_like(index, dtype=torch.bool)
        new[order[1:]] = index[order[1:]] != index[order[:-1]]
        once = new.repeat_interleave(size)
        keys, scores = dim_zero_cat(self.key).cpu()[once], dim_zero_cat(self.score).cpu()[once]
        value = self.figure(keys, scores) if keys.any() and not keys.all() else torch.nan
        return torch.tensor(value, device=self.device)

    @abstractmethod
    def figure(self, keys: Tensor, scores: Tensor) -> float:
        """From which instances are key, 0 or 1, and scores, each of shape ``(N,)``, with both kinds present."""


class PooledAUROC(PooledInstances):
    """Chance that a key instance of the split scores above another one, of any bag."""

    def figure(self, keys: Tensor, scores: Tensor) -> float:
        """See :meth:`PooledInstances.figure`."""
        return float(roc_auc_score(keys, scores))


class PooledAveragePrecision(PooledInstances):
    """Average precision over all instances of the split."""

    def figure(self, keys: Tensor, scores: Tensor) -> float:
        """See :meth:`PooledInstances.figure`."""
        return float(average_precision_score(keys, scores))
