"""Texts with a 0/1 file beside them that says which words may matter, as in SST+Wiki: `BlockMaskDataModule`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lightning_attn.data.corpus import CorpusDataModule
from lightning_attn.data.examples import Examples
from lightning_attn.data.files import existing, read_lines
from lightning_attn.errors import InputError

FILES = {"train": "train.txt", "val": "dev.txt", "test": "test.txt"}


class BlockMaskDataModule(CorpusDataModule):
    """A sentence that decides the label, and beside it one that has nothing to do with it.

    Reads ``train.txt``, ``dev.txt``, ``test.txt`` (label, tab, text) and for each a ``.block`` file with one 0 or 1 per
    word of the text, split at white space and taken as they are: evidence 0 is certain to be irrelevant, 1 may matter.

    Source: Pruthi et al., ACL 2020, https://aclanthology.org/2020.acl-main.432

    Args:
        path: Folder of the six files.
        shuffle_parts: Whether to move the leading evidence to the end in half of the texts, drawn by ``seed``. In
            SST+Wiki the sentence that matters always comes first, so position alone would give the evidence away.
        class_names: Label as it stands in the files, to name to show, in the order of the logits; None takes the
            labels themselves.
        **kwargs: Those of `CorpusDataModule`, such as ``processor``, ``word_vectors``, ``batch_size``, ``seed``.
    """

    def __init__(
        self,
        path: str | Path,
        shuffle_parts: bool = True,
        class_names: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.shuffle_parts = shuffle_parts
        self.class_names = None if class_names is None else {str(key): name for key, name in class_names.items()}

    def classes(self) -> list[str] | None:
        """The names in ``class_names``; None if there are none given."""
        return None if self.class_names is None else list(self.class_names.values())

    def settings(self) -> dict[str, Any]:
        """Order of the parts, and names."""
        names = None if self.class_names is None else list(self.class_names.items())
        return {"shuffle_parts": self.shuffle_parts, "seed": self.seed, "class_names": names}

    def files(self) -> list[Path]:
        """Those of the three texts that are there, each with its ``.block`` file."""
        folder = existing(self.path, "folder of texts with .block files")
        texts = [folder / name for name in FILES.values() if (folder / name).is_file()]
        if not texts:
            raise InputError(f"{folder} has none of {', '.join(FILES.values())}.")
        for text in texts:
            existing(f"{text}.block", f"evidence for {text.name}")
        return [*texts, *(Path(f"{text}.block") for text in texts)]

    def read(self) -> tuple[dict[str, Examples], list[str]]:
        """The texts of each file, and their evidence."""
        names = {name: split for split, name in FILES.items()}
        texts = [path for path in self.files() if path.name in names]
        splits = {names[path.name]: self._read_file(path) for path in texts}
        if not self.shuffle_parts:
            return splits, []
        for number, examples in enumerate(splits.values()):
            _swap(examples, np.random.default_rng((self.seed, number)))
        return splits, [f"The part that matters was moved to the end in half of the texts, by seed {self.seed}."]

    def _read_file(self, path: Path) -> Examples:
        examples = Examples([], [], str(path), evidence=[], lines=[])
        assert examples.evidence is not None
        assert examples.lines is not None
        for number, line in read_lines(path):
            label, tab, text = line.partition("\t")
            if not tab or not label.strip():
                raise InputError(f"{path}, line {number}, should be a label, a tab and a text.")
            if self.class_names is not None and label not in self.class_names:
                keys = ", ".join(repr(name) for name in self.class_names)
                raise InputError(f"{path}, line {number}: unknown label {label!r}; class_names has {keys}.")
            examples.texts.append(text.split())
            examples.labels.append(label if self.class_names is None else self.class_names[label])
            examples.lines.append(number)
        blocks = Path(f"{path}.block")
        for number, line in read_lines(blocks):
            values = line.split()
            if not set(values) <= {"0", "1"}:
                raise InputError(f"{blocks}, line {number}, should be one 0 or 1 per word, separated by spaces.")
            examples.evidence.append([float(value) for value in values])
        if len(examples.evidence) != len(examples):
            raise InputError(f"{path} has {len(examples):,} lines, but {blocks.name} has {len(examples.evidence):,}.")
        return examples


def _swap(examples: Examples, generator: np.random.Generator) -> None:
    """In half of the texts, move the run of ones that leads to the end."""
    assert examples.evidence is not None
    for row in np.flatnonzero(generator.random(len(examples)) < 0.5).tolist():
        words, values = examples.texts[row], list(examples.evidence[row])
        if len(words) != len(values):
            continue  # reported, with its line, when evidence and words are laid side by side
        lead = values.index(0.0) if 0.0 in values else 0
        examples.texts[row] = [*words[lead:], *words[:lead]]
        examples.evidence[row] = values[lead:] + values[:lead]
