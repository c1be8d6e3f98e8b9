"""Every YAML file of ``configs/`` is found by itself and run for a step."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lightning_attn.cli.commands import main
from tests.helpers.commands import start
from tests.helpers.tiny_models import save_classifier, save_model, save_tokenizer, tiny_config

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def trees(folder: Path) -> None:
    for split in ("train", "dev", "test"):
        lines = ["(3 (2 a) (4 (3 good) (2 film)))", "(1 (2 a) (0 (1 bad) (2 film)))"] * 8
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")


def reviews(folder: Path) -> None:
    for split in ("train", "test"):
        rows = [{"text": f"a {word} film number {n}", "label": word} for n in range(20) for word in ("good", "bad")]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rationales(folder: Path) -> None:
    (folder / "docs").mkdir()
    for split in ("train", "val", "test"):
        rows = []
        for number in range(16):
            name, label = f"{split}_{number}.txt", ("POS", "NEG")[number % 2]
            (folder / "docs" / name).write_text(f"a {label.lower()} film\nthe end number {number}\n")
            place = {"docid": name, "start_token": 1, "end_token": 2, "start_sentence": 0, "end_sentence": 1}
            evidences = [[{"text": label.lower(), **place}]]
            rows.append({"annotation_id": name, "classification": label, "evidences": evidences, "query": "Good?"})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def blocks(folder: Path) -> None:
    for split in ("train", "dev", "test"):
        lines = [f"{n % 2}\ta {('bad', 'good')[n % 2]} film . the river is long ." for n in range(16)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
        (folder / f"{split}.txt.block").write_text("1 1 1 1 0 0 0 0 0\n" * 16)


def stories(folder: Path) -> None:
    story = "1 Mary went to the {0}.\n2 John went to the {1}.\n3 Where is Mary?\t{0}\t1\n4 Where is John?\t{1}\t2\n"
    names = ("hall", "attic", "garden", "office")
    told = "".join(story.format(*pair) for pair in itertools.permutations(names, 2))
    for split in ("train", "test"):
        (folder / f"qa1_facts_{split}.txt").write_text(told)


def inferences(folder: Path) -> None:
    labels = ("entailment", "neutral", "contradiction")
    rows = [f"a man sleeps {n}\tsomebody is {label}\t{label}" for n in range(8) for label in labels]
    for split in ("train", "dev", "test"):
        (folder / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tgold_label", *rows]) + "\n")


def articles(folder: Path) -> None:
    data = []
    for number in range(12):
        qas = [{"id": f"{number}", "question": "a good film", "answers": [{"text": "bad", "answer_start": 2}]}]
        data.append({"title": f"{number}", "paragraphs": [{"context": "a bad film " * (1 + number), "qas": qas}]})
    (folder / "xquad.en.json").write_text(json.dumps({"version": "1.1", "data": data}))


def case_reports(folder: Path) -> None:
    relations = [
        f"{n}|Case {n}: drug{n} caused rash.|rash|120|124|drug{n}|{120 - 8 - len(f'drug{n}')}|112" for n in range(20)
    ]
    (folder / "DRUG-AE.rel").write_text("\n".join(relations) + "\n")
    (folder / "ADE-NEG.txt").write_text("".join(f"{n} NEG Case {n} took drug{n} and was well.\n" for n in range(20)))


def digit_images(folder: Path) -> None:
    for part in ("train", "t10k"):
        images, digits = np.zeros((60, 8, 8), dtype=np.uint8), np.arange(60, dtype=np.uint8) % 10
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", digits)):
            header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
            (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))


MAKERS: dict[str, Callable[[Path], None]] = {
    "SSTDataModule": trees,
    "TextDataModule": reviews,
    "ERASERDataModule": rationales,
    "BlockMaskDataModule": blocks,
    "BabiDataModule": stories,
    "NLIDataModule": inferences,
    "ADEDataModule": case_reports,
    "SQuADDataModule": articles,
    "MNIST": digit_images,
}
PLACES = {  # of others, the folder
    "NLIDataModule": {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"},
    "SQuADDataModule": {"train": "xquad.en.json"},
    "MNIST": {"modality.init_args.path": "."},
}


#: What configurations of selection/ explain, where it has no configuration of its own.
BLACK_BOXES = {"sst": "sst.yaml", "imdb": "imdb.yaml", "movies": "eraser_movies.yaml"}


def reads(data: dict[str, Any]) -> str | None:
    """The class of the configuration that reads files: the data module, or the modality of its bags."""
    modality = data.get("init_args", {}).get("modality")
    return modality["class_path"] if isinstance(modality, dict) else data.get("class_path")


def teacher(folder: Path, config: Path = CONFIGS / "quickstart.yaml", data: Sequence[str] = ()) -> Path:
    """A checkpoint of a configuration, after one step."""
    options = [
        f"--trainer.default_root_dir={folder / 'teacher'}",
        "--trainer.limit_train_batches=1",
        "--trainer.limit_val_batches=1",
        "--wandb=disabled",
    ]
    options += ["--trainer.max_epochs=1", "--trainer.callbacks=null", "--model.init_args.mitigation=null"]
    assert main(["fit", "--config", str(config), *data, *options]) == 0
    (checkpoint,) = folder.glob("teacher/*/checkpoints/best.ckpt")
    return checkpoint


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_config_trains(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    content = yaml.safe_load(file.read_text())
    base = [] if "data" in content else ["--config", str(CONFIGS / "quickstart.yaml")]
    command = ["fit", *base, "--config", str(file), "--trainer.fast_dev_run=true"]
    if (kind := reads(content.get("data", {}))) in MAKERS:
        data = tmp_path / "data"
        data.mkdir()
        MAKERS[kind](data)
        places = PLACES.get(kind, {"path": "."})
        command += [f"--data.init_args.{argument}={data / place}" for argument, place in places.items()]
    if "FrozenAttention" in file.read_text():
        command += [f"--model.init_args.network.init_args.attention.init_args.checkpoint={teacher(tmp_path)}"]
    if "BlackBoxExplainer" in file.read_text():
        own = file.parent / "black_boxes" / file.name
        options = [option for option in command if option.startswith("--data.")]
        base_config = CONFIGS / BLACK_BOXES.get(file.stem, "quickstart.yaml")
        if "HuggingFaceProcessor" in file.read_text():
            box = tmp_path / "model"
            save_classifier(
                box, tiny_config("distilbert", save_tokenizer(box, ["a good film", "a bad film"])), classes=2
            )
            command += [f"--data.init_args.processor.init_args.name_or_path={box}"]
        else:
            box = teacher(tmp_path, own if own.is_file() else base_config, options)
        command += [f"--model.init_args.black_box={box}"]
    if (pretrained := "PretrainedEncoder" in file.read_text()) or re.search(
        "Transformer(QA)?Network", file.read_text()
    ):
        model = tmp_path / "model"
        save_model(model, tiny_config("bert", save_tokenizer(model, ["a good film", "a bad film"])))
        place = "encoder.init_args.name_or_path" if pretrained else "name_or_path"
        command += [f"--model.init_args.network.init_args.{place}={model}"]
        command += [f"--data.init_args.processor.init_args.name_or_path={model}"]
    if content.get("trainer", {}).get("accelerator") == "gpu":
        if not torch.cuda.is_available():
            assert main(command) == 2
            assert "gpu" in capsys.readouterr().err.lower()
            return
    elif "strategy" in content.get("trainer", {}):
        # Processes of their own: a process group would stay with the tests that come after this one.
        process = start(*command)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return
    else:
        command += ["--trainer.devices=1", "--trainer.accelerator=cpu"]
    assert main(command) == 0
    assert not list(here.iterdir())


def test_there_is_what_the_documentation_names() -> None:
    names = {str(file.relative_to(CONFIGS)) for file in FILES}
    mitigations = {f"mitigations/{name}.yaml" for name in ("none", "random_pretraining", "instance_weighting", "both")}
    trainers = {f"trainer/{name}.yaml" for name in ("cpu", "gpu", "ddp")}
    selection = {f"selection/{name}.yaml" for name in ("mnist_pairs", "digits", "sst", "imdb", "movies", "hub")}
    experiments = {"experiments/attention_is_not_explanation.yaml", "attention/uniform.yaml", "attention/frozen.yaml"}
    transformers = tuple(
        f"transformers/{name}" for name in ("sst", "sst_self_attention", "imdb", "eraser_movies", "nli", "squad")
    )
    names_of_data = ("quickstart", "sst", "imdb", "eraser_movies", "sst_wiki", "nli", "babi", "ade", *transformers)
    data = {f"{name}.yaml" for name in names_of_data}
    assert selection | mitigations | trainers | experiments | data <= names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_config_says_how_to_run_it(file: Path) -> None:
    comment = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(rf"lightning-attn fit .*{re.escape(str(file.relative_to(CONFIGS.parent)))}", comment)
