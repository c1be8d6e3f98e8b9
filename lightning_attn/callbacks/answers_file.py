"""What ``lightning predict`` leaves behind of questions: ``predictions.jsonl``."""

from __future__ import annotations

import json

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from lightning_attn.data.squad import SQuADDataModule
from lightning_attn.errors import InputError
from lightning_attn.runs.folder import PREDICTIONS, folder_of
from lightning_attn.tasks.question_answering import QuestionAnswerer


class AnswersFile(Callback):
    """Writes one JSON object a question of the test data into the run's folder, in their order.

    Keys: ``index``, ``id`` (of the question in its file), ``question``, ``prediction`` (a piece of the context, or
    empty for no answer) and ``answers`` (those of the file).
    """

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file; all processes know all answers, and the first one writes.

        Raises:
            InputError: The module answers no questions, or the data are none.
        """
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, QuestionAnswerer) or not isinstance(data, SQuADDataModule):
            raise InputError("AnswersFile is for QuestionAnswerer with a SQuADDataModule: use PredictionsFile.")
        answers = pl_module.answers("test")
        if not trainer.is_global_zero:
            return
        lines = [
            {
                "index": number,
                "id": question.key,
                "question": question.text,
                "prediction": answers[question.key],
                "answers": list(dict.fromkeys(question.texts)) if question.answers else [],
            }
            for number, question in enumerate(data.dataset("test").questions)
            if question.key in answers
        ]
        folder = folder_of(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / PREDICTIONS).write_text(text, encoding="utf-8")
