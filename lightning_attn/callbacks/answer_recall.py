"""How much of the answer the most important tokens hold: `AnswerRecallCallback`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_attn.attribution import get
from lightning_attn.callbacks.sampled import SampledCallback, Split, network_of
from lightning_attn.data.squad import SQuADDataModule
from lightning_attn.errors import InputError
from lightning_attn.metrics.answers import AnswerRecall
from lightning_attn.types import Batch


class AnswerRecallCallback(SampledCallback):
    """Logs ``val/answer_recall/METHOD`` (``test/...``): recall of the answer among the k best-ranked tokens.

    Of each question that has an answer the window with most around it is explained, the span that the network answers
    with. ``random`` stands beside the methods, because k tokens of a short window hold much of any answer.

    Args:
        methods: Names of attribution methods.
        k: Tokens that count; 20 is published (Mask-LRP).
        max_examples: Questions to explain, at least 1.
        every_n_epochs: Validation epochs from one look to the next; validate and test always look.
        batch_size: Windows explained at once.
        seed: Another seed, other questions.

    Raises:
        InputError: A number is below 1, or there is no such method.
    """

    def __init__(
        self,
        methods: Sequence[str] = ("raw_attention", "rollout", "transatt", "random"),
        k: int = 20,
        max_examples: int = 128,
        every_n_epochs: int = 1,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, max_examples, seed)
        self._at_least_one(k=k, batch_size=batch_size)
        self.methods = {name: get(name) for name in methods}
        self.k = k
        self.batch_size = batch_size

    def keep(self, split: Split, pl_module: LightningModule, batch: Batch) -> None:
        """Keep one window of each question that has an answer.

        Raises:
            InputError: The data are no questions.
        """
        data = getattr(pl_module.trainer, "datamodule", None)
        if not isinstance(data, SQuADDataModule):
            raise InputError("AnswerRecallCallback is for questions: use it with a SQuADDataModule.")
        if len(batch):
            answering = torch.from_numpy(data.dataset(split).chosen[batch.index.cpu().numpy()]).to(batch.device)
            super().keep(split, pl_module, batch.select(answering & (batch.target[:, 1] > 0)))

    def evaluate(self, split: Split, trainer: Trainer, pl_module: LightningModule, batches: list[Batch]) -> None:
        """Explain, and log one figure per method; every process must take part."""
        network = network_of(pl_module)
        for name, method in self.methods.items():
            recall = AnswerRecall(self.k).to(pl_module.device)
            for batch in batches:
                for rows in torch.split(torch.arange(len(batch), device=batch.device), self.batch_size):
                    part = batch.select(rows)
                    recall.update(method.attribute(network, part), part)
            value = recall.compute()
            pl_module.log(f"{split}/answer_recall/{name}", value.to(pl_module.device), sync_dist=True)
