"""The LightningModule that trains a network to answer questions by spans: `QuestionAnswerer`."""

from __future__ import annotations

from contextlib import nullcontext

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.text import SQuAD
from typing_extensions import override

from lightning_attn.data.squad import SQuADDataModule
from lightning_attn.errors import InputError
from lightning_attn.metrics.answers import BestAnswers
from lightning_attn.metrics.base import ExampleMean
from lightning_attn.mitigations import Compose, Mitigation
from lightning_attn.networks.transformer.qa import TransformerQANetwork
from lightning_attn.ops.evaluation import unmixed
from lightning_attn.tasks.base import AttentionModule
from lightning_attn.types import Batch, DataSchema

#: What a mitigation may do besides changing what is read, and has no meaning where no weights pool the text.
_OF_WEIGHTS = ("observe", "weigh", "auxiliary_loss", "lr_scales")


class QuestionAnswerer(AttentionModule):
    """Trains a :class:`~lightning_attn.networks.TransformerQANetwork`; the data are a :class:`SQuADDataModule`.

    The loss is the mean cross-entropy of first and last token, over the context and the first position, which means
    that the window has no answer. Logs ``train/loss``, and ``loss``, ``exact_match`` and ``f1`` under ``val/`` and
    ``test/``: of each question the best span over all its windows, by torchmetrics' SQuAD, as shares (not per cent). If
    some questions of a split have no answer, "no answer" wins where its logit, the lowest over the windows, is above
    that of the best span. Every figure is the same for any number of processes.

    Of the mitigations those apply that only change what is read while training, such as
    :class:`~lightning_attn.mitigations.MaskedFineTuning`: no weights pool the text into one vector here, so that there
    is no label in them to hide.

    Arguments: see :class:`AttentionModule`.
    """

    network: TransformerQANetwork

    def make_metrics(self, schema: DataSchema) -> None:
        """Loss, exact match and F1."""
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), ExampleMean(), ExampleMean()
        self.val_answers, self.test_answers = BestAnswers(), BestAnswers()

    def setup(self, stage: str) -> None:
        """As always, and check that network and mitigation are for questions.

        Raises:
            InputError: They are not; or see :meth:`AttentionModule.setup`.
        """
        if not isinstance(self.network, TransformerQANetwork):
            raise InputError(
                f"QuestionAnswerer trains a TransformerQANetwork, not a {type(self.network).__name__}; for classes "
                "take AttentionClassifier."
            )
        for mitigation in _single(self.mitigation):
            if any(getattr(type(mitigation), name) is not getattr(Mitigation, name) for name in _OF_WEIGHTS):
                raise InputError(
                    f"{type(mitigation).__name__} acts on weights that pool a text, and a network that answers "
                    "questions has none: use NoMitigation or MaskedFineTuning."
                )
        super().setup(stage)

    @override
    def logged_names(self) -> set[str]:
        return super().logged_names() | {"val/exact_match", "val/f1"}

    def forward(self, batch: Batch) -> Tensor:
        """Start and end logits, shape ``(B, 2, L)``."""
        with nullcontext() if self.training else unmixed(self.device):
            return self.network.ends(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        batch = self.mitigation.perturb(batch)
        loss = self.loss(self(batch), batch.target)
        self.train_loss.update(loss.detach(), len(batch))
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def loss(self, ends: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of first and last token, a scalar.

        Args:
            ends: Start and end logits, shape ``(B, 2, L)``.
            target: First and last position, shape ``(B, 2)``.
        """
        return F.cross_entropy(ends.flatten(0, 1).float(), target.flatten())

    def on_validation_epoch_start(self) -> None:
        """Forget the answers of the last evaluation, which :meth:`answers` gave until now."""
        self.val_answers.reset()

    def on_test_epoch_start(self) -> None:
        """As in validation."""
        self.test_answers.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the best span of each window."""
        self._answer(batch, "val", self.val_loss, self.val_answers)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As in validation."""
        self._answer(batch, "test", self.test_loss, self.test_answers)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/*``."""
        self._log("val", self.val_loss, self.val_answers)

    def on_test_epoch_end(self) -> None:
        """Log ``test/*``."""
        self._log("test", self.test_loss, self.test_answers)

    def on_predict_epoch_start(self) -> None:
        """As in validation."""
        self.test_answers.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the best span of each window of the test data; :meth:`answers` puts them together."""
        self._answer(batch, "test", None, self.test_answers)

    def answers(self, split: str) -> dict[str, str]:
        """What was answered just now, by the id of the question; to be asked on all processes.

        Args:
            split: Of the evaluation, ``val`` or ``test``; a prediction is of ``test``.
        """
        found = self.val_answers if split == "val" else self.test_answers
        return self._texts(split, found)

    def _answer(self, batch: Batch, split: str, loss: ExampleMean | None, answers: BestAnswers) -> None:
        if not len(batch):
            return
        ends = self(batch)
        if loss is not None:
            each = F.cross_entropy(ends.flatten(0, 1).float(), batch.target.flatten(), reduction="none")
            loss.update(each.view(-1, 2).mean(dim=1), batch.index)
        best, tokens, none = self.network.best_spans(ends)
        dataset = self._data().dataset(split)
        rows = batch.index.cpu().numpy()
        characters = batch.index.new_tensor(dataset.characters(rows, tokens.cpu().numpy()))
        owner = batch.index.new_tensor(dataset.owner[rows])
        answers.update(owner, best, characters, none, batch.index)

    def _log(self, split: str, loss: ExampleMean, answers: BestAnswers) -> None:
        self.log(f"{split}/loss", loss, prog_bar=True)
        questions = {question.key: question for question in self._data().dataset(split).questions}
        score = SQuAD()
        for key, text in self._texts(split, answers).items():
            right = questions[key].texts
            expected: dict[str, list[str] | list[int]] = {"text": right, "answer_start": [0] * len(right)}
            score.update({"id": key, "prediction_text": text}, {"id": key, "answers": expected})
        if not score.update_called:
            return
        # The same on every process: all have gathered the spans of all windows.
        for name, value in score.compute().items():
            self.log(f"{split}/{name}", value.to(self.device) / 100, prog_bar=True, sync_dist=True)

    def _texts(self, split: str, answers: BestAnswers) -> dict[str, str]:
        questions = self._data().dataset(split).questions
        may_lack = any(not question.answers for question in questions)
        found = {}
        for number, logit, first, end, none in answers.compute().tolist():
            question = questions[int(number)]
            silent = may_lack and none > logit
            found[question.key] = "" if silent else question.context[int(first) : int(end)]
        return found

    def _data(self) -> SQuADDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, SQuADDataModule):
            raise InputError("QuestionAnswerer needs the questions to measure answers: give it a SQuADDataModule.")
        return data


def _single(mitigation: Mitigation) -> list[Mitigation]:
    """The mitigations that one is made of."""
    if not isinstance(mitigation, Compose):
        return [mitigation]
    return [single for part in mitigation.mitigations for single in _single(part)]
