"""What ``lightning predict`` leaves behind, ``predictions.jsonl``: `PredictionsFile`, `AnswersFile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from lightning_attn.callbacks.sampled import network_of
from lightning_attn.data.processor import TextProcessor
from lightning_attn.data.squad import SQuADDataModule
from lightning_attn.errors import InputError
from lightning_attn.ops.files import replacing, write_text
from lightning_attn.ops.text import to_json
from lightning_attn.runs.folder import PREDICTIONS, folder_of
from lightning_attn.tasks.question_answering import QuestionAnswerer


class PredictionsFile(Callback):
    """Writes one JSON object per example into the run's folder, in the order of the data, each example once.

    Keys: ``index``, ``prediction`` (class name; a list of names for multi-label), ``probabilities`` (by class name),
    ``tokens`` (where the data are texts) and ``attention`` (one weight per token). Every process writes what it
    predicted; the first one puts the parts together, so all must see the same disk.
    """

    def __init__(self) -> None:
        self._folder = Path()
        self._file: IO[bytes] | None = None
        self._processor: TextProcessor | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's part."""
        self._folder = folder_of(trainer)
        self._folder.mkdir(parents=True, exist_ok=True)
        state = getattr(pl_module, "data_state", {}).get("processor")
        self._processor = None if state is None else TextProcessor.from_state(state)
        self._file = _part(self._folder, trainer.global_rank).open("wb")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the batch; under DDP it may be empty."""
        if outputs is None:
            return
        schema = network_of(pl_module).schema
        names = schema.names
        # Features of instances are neither written nor small.
        wanted = [name for name in outputs if name != "inputs" or self._processor is not None]
        columns = {name: outputs[name].cpu().tolist() for name in wanted}
        assert self._file is not None
        for row, index in enumerate(columns["index"]):
            probabilities = columns["probabilities"][row]
            likely: str | list[str] = names[max(range(len(names)), key=probabilities.__getitem__)]
            if schema.multi_label:
                likely = [name for name, probability in zip(names, probabilities, strict=True) if probability > 0.5]
            length = sum(columns["valid"][row])
            record = {
                "index": index,
                "prediction": likely,
                "probabilities": {name: round(value, 6) for name, value in zip(names, probabilities, strict=True)},
                "attention": [round(value, 6) for value in columns["attention"][row][:length]],
            }
            if self._processor is not None:
                record["tokens"] = self._processor.tokens(columns["inputs"][row][:length])
            self._file.write(f"{to_json(record)}\n".encode())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the parts of all processes together."""
        assert self._file is not None
        self._file.close()
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            _merge([_part(self._folder, rank) for rank in range(trainer.world_size)], self._folder / PREDICTIONS)


def _part(folder: Path, rank: int) -> Path:
    return folder / f"{PREDICTIONS}.{rank}"


def _merge(parts: list[Path], target: Path) -> None:
    """Write the lines of the parts by index, each index once; only the places of the lines are kept in memory."""
    places: dict[int, tuple[Path, int]] = {}
    for part in parts:
        offset = 0
        with part.open("rb") as file:
            for line in file:
                places.setdefault(int(json.loads(line)["index"]), (part, offset))
                offset += len(line)
    files = {part: part.open("rb") for part in parts}
    with replacing(target) as unfinished, unfinished.open("wb") as output:
        for _, (part, offset) in sorted(places.items()):
            files[part].seek(offset)
            output.write(files[part].readline())
    for part, file in files.items():
        file.close()
        part.unlink()


class AnswersFile(Callback):
    """Writes one JSON object per question of the test data into the run's folder, in their order.

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
        write_text(folder / PREDICTIONS, "".join(f"{to_json(line)}\n" for line in lines))
