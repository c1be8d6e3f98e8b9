"""A price on the label information that an adversary finds in the attention."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from lightning_attn.attention.softmax import attendable
from lightning_attn.mitigations.base import Mitigation
from lightning_attn.mitigations.mask_classifier import BagMaskClassifier, MaskClassifier, SetMaskClassifier
from lightning_attn.mitigations.outcomes import Outcomes
from lightning_attn.types import AttentionOutput, Batch, DataSchema

if TYPE_CHECKING:  # the network owns the attention layer, which owns the mitigation
    from lightning_attn.networks.base import AttentionNetwork


class LeakagePenalty(Mitigation):
    """The scorer pays for what can be told about the label from its weights alone.

    An adversary, trained with the model on detached weights, estimates P(y | attention). A second one of the same kind
    sees uniform weights, so that it knows what the number of positions tells and no more. The scorer pays
    ``strength * KL(P(y | positions) || P(y | attention))``: nothing is left to pay once the weights tell no more than
    their number. A reversed gradient would go on rewarding the scorer for driving the adversary into errors, which the
    adversary then unlearns; here neither has anything to gain at the end.

    Alone it lowers what the weights tell; the head still learns to read what is left. With :class:`RandomMixing` before
    it in a :class:`Compose`, the head has little to gain from reading, and the scorer no reason to tell. Our own, not
    published.

    Args:
        strength: Price of a nat, above 0. Below 1 a head that reads the weights gains more than the scorer pays.
        adversary: Estimator of P(y | attention), copied for the second; None means ``SetMaskClassifier()``, or
            ``BagMaskClassifier()`` for bags.
        rate: How many times as fast as the model adversaries learn, above 0: they have to follow a scorer that moves.

    Raises:
        ValueError: ``strength`` or ``rate`` is not above 0.
    """

    def __init__(self, strength: float = 2.0, adversary: MaskClassifier | None = None, rate: float = 5.0) -> None:
        if not strength > 0:
            raise ValueError(f"LeakagePenalty needs a strength above 0, got {strength}; use NoMitigation for 0.")
        if not rate > 0:
            raise ValueError(f"LeakagePenalty needs a rate above 0, got {rate}.")
        super().__init__()
        self.strength = strength
        self.rate = rate
        self.adversary = adversary or SetMaskClassifier()
        self._chosen = adversary is not None
        self.built = False
        self.adversary_bits = MeanMetric()

    def build(self, schema: DataSchema) -> None:
        """Make the adversaries for this number of classes.

        Raises:
            ValueError: It was built before: adversaries belong to one network.
        """
        if self.built:
            raise ValueError("This LeakagePenalty belongs to a network already; make a new one for another network.")
        self.built = True
        if schema.feature_shape is not None and schema.grid is None and not self._chosen:
            self.adversary = BagMaskClassifier()
        self.outcomes = Outcomes(schema)
        self.adversary.make_layers(self.outcomes.frequency.numel())
        self.reference = copy.deepcopy(self.adversary)

    def auxiliary_loss(self, output: AttentionOutput, batch: Batch, network: AttentionNetwork) -> Tensor:
        """What the scorer pays, and the cross-entropy of both adversaries; a scalar."""
        attention = output.learned
        # Special tokens that are attended count too: weight on them is where a label can hide best.
        allowed = attendable(batch) | (attention > 0)
        uniform = allowed / allowed.sum(dim=-1, keepdim=True).clamp(min=1)
        outcome = self.outcomes.of(batch)
        told = self._log_probability(self.adversary, attention.detach(), allowed)
        known = self._log_probability(self.reference, uniform.to(attention), allowed)
        learning = -(outcome * (told + known)).sum(dim=2).mean()
        self.adversary_bits.update((outcome * (told - known)).detach().sum(dim=2).mean() / torch.tensor(2.0).log())
        # The price is the scorer's alone: the adversary must not learn to say nothing.
        trained = [weight for weight in self.adversary.parameters() if weight.requires_grad]
        for weight in trained:
            weight.requires_grad_(False)
        felt = self._log_probability(self.adversary, attention, allowed)
        for weight in trained:
            weight.requires_grad_(True)
        known = known.detach()
        return learning + self.strength * (known.exp() * (known - felt)).sum(dim=2).mean()

    def trainable(self, network: AttentionNetwork, epoch: int) -> dict[nn.Module, float]:
        """Adversaries learn faster than the rest."""
        return {self.adversary: self.rate, self.reference: self.rate}

    def metrics(self) -> dict[str, Metric]:
        """Bits that the adversary tells beyond the number of positions, on the batches it then learns from."""
        return {"adversary_bits": self.adversary_bits}

    def _log_probability(self, classifier: MaskClassifier, attention: Tensor, allowed: Tensor) -> Tensor:
        """Ln P(y | attention), shape ``(B, columns, cells)``."""
        logits: Tensor = classifier(attention, allowed)
        return logits.view(len(logits), self.outcomes.columns, self.outcomes.cells).log_softmax(dim=-1)
