"""Configurations and tokenizers of pretrained models that want code fetched or run, or all memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForQuestionAnswering

from lightning_attn.cli.commands import main
from lightning_attn.cli.hub_models import read_hub_model
from lightning_attn.data import HuggingFaceProcessor
from lightning_attn.encoders import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.networks import PooledNetwork, TransformerNetwork, TransformerQANetwork
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.types import DataSchema
from tests.helpers.tiny_models import save_classifier, save_tokenizer, tiny_config
from tests.helpers.toys import toy_batch

TEXT = "the plot was dull"
CODE: dict[str, Any] = {
    "attn_implementation": "somebody/kernel",
    "_attn_implementation": "somebody/kernel",
    "experts_implementation": "somebody/kernel",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "transformers_weights": "other.safetensors",
    "fusion_config": {"patch_embeddings": True},
    "backbone": "somebody/backbone",
}
#: Dropped from folders too: they change nothing of what is computed by transformers' own classes.
IGNORED: dict[str, Any] = {
    "auto_map": {
        "AutoConfig": "own_code.Thing",
        "AutoModel": "own_code.Thing",
        "AutoTokenizer": ["own_code.Thing"] * 2,
    },
    "torchscript": True,
    "_name_or_path": "somebody/else",
    "_commit_hash": "0" * 40,
    "to_json_string": "shadowed",
    "other": {"deeply": {"nested": "values"}},
    "attn_implementation": "flash_attention_2",
}
SIZES: dict[str, Any] = {
    "num_hidden_layers": 10**6,
    "num_attention_heads": 10**9,
    "num_labels": 10**9,
    "hidden_size": 10**9,
    "intermediate_size": 10**13,
    "max_position_embeddings": 10**12,
    "type_vocab_size": 10**15,
    "per_layer_config": {"0": {"num_hidden_layers": 10**9}},
    "id2label": [],
    "hidden_act": "nothing",
    "dtype": "save",
    "layer_norm_eps": "x",
}
IDS = [f"{name}" for name in SIZES]


def changed(folder: Path, file: str = "config.json", **values: Any) -> Path:
    """The folder, with something else in one of its files."""
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | values))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user who says yes to everything, where code waits to be run."""
    ran = tmp_path / "ran"

    def fetch(*_: Any, **__: Any) -> None:
        ran.touch()

    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", fetch)
    monkeypatch.setattr("transformers.dynamic_module_utils.get_cached_module_file", fetch)
    yield
    assert not ran.exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier with its tokenizer."""
    return save_classifier(tmp_path / "model", tiny_config("bert", save_tokenizer(tmp_path / "model", [TEXT])))


@pytest.fixture
def bounded() -> Iterator[None]:
    """What takes neither time nor memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


def answerer(folder: Path) -> Path:
    AutoModelForQuestionAnswering.from_pretrained(folder).save_pretrained(folder)
    return folder


NETWORKS: dict[str, Callable[[str], tuple[AttentionNetwork, DataSchema]]] = {
    "TransformerNetwork": lambda name: (TransformerNetwork(name), DataSchema(num_classes=2, vocabulary_size=30)),
    "TransformerQANetwork": lambda name: (
        TransformerQANetwork(name),
        DataSchema(num_classes=2, vocabulary_size=30, spans=True),
    ),
    "PretrainedEncoder": lambda name: (
        PooledNetwork(PretrainedEncoder(name)),
        DataSchema(num_classes=2, vocabulary_size=30),
    ),
}


@pytest.fixture(scope="module", params=NETWORKS)
def state(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """What a checkpoint holds of a network with a pretrained model, and where the model's configuration stands."""
    folder = answerer(save_classifier(tmp_path_factory.mktemp("model"), tiny_config("bert"), classes=2))
    network, schema = NETWORKS[request.param](str(folder))
    network.build(schema)
    part = network.encoder if isinstance(network, PooledNetwork) else network
    assert isinstance(part, (PretrainedEncoder, TransformerNetwork, TransformerQANetwork))
    model = {"class_path": request.param, "init_args": {"name_or_path": "somebody/model", "config": part.config}}
    inner = model if part is network else {"class_path": "PooledNetwork", "init_args": {"encoder": model}}
    return TrainedNetwork(network.eval(), inner).state(), model["init_args"]


def again(state: tuple[dict[str, Any], Any], **values: Any) -> AttentionNetwork:
    content, arguments = state
    before = arguments["config"]
    arguments["config"] = before | values
    try:
        return TrainedNetwork.from_state(content).network
    finally:
        arguments["config"] = before


@pytest.mark.parametrize("key", [*CODE, *IGNORED])
def test_a_checkpoint_decides_nothing_but_the_model(state: tuple[dict[str, Any], Any], key: str) -> None:
    batch = toy_batch([5, 3])
    found = again(state, **{key: {**IGNORED, **CODE}[key]})(batch).logits
    assert torch.equal(found, again(state)(batch).logits)


@pytest.mark.parametrize(("key", "value"), SIZES.items(), ids=IDS)
def test_a_checkpoint_takes_no_memory_for_absurd_sizes(
    state: tuple[dict[str, Any], Any], bounded: None, key: str, value: Any
) -> None:
    with pytest.raises(InputError) as refused:
        again(state, **{key: value})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("kind", ["unheard-of", None, ["bert"], "gpt2"])
def test_a_checkpoint_with_a_model_of_another_kind(state: tuple[dict[str, Any], Any], kind: Any) -> None:
    with pytest.raises(InputError, match=r"no config.json with a model_type|own code \(auto_map\) is never run"):
        again(state, model_type=kind, **IGNORED)


def explained(folder: Path, capsys: pytest.CaptureFixture[str], status: int) -> str:
    """What ``explain`` says of the model on its error stream."""
    capsys.readouterr()
    assert main(["explain", f"--model={folder}", "--text", TEXT, "--method=gradient"]) == status
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return " ".join(errors.split())


@pytest.mark.parametrize("key", CODE)
def test_a_folder_that_needs_code_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    sentence = explained(changed(folder, **{key: CODE[key]}), capsys, 2)
    assert key in sentence
    with pytest.raises(InputError, match=key):
        PretrainedEncoder(str(folder)).make_layers(DataSchema(num_classes=2, vocabulary_size=30))
    with pytest.raises(InputError, match=key):
        read_hub_model(str(changed(folder, architectures=["BertForQuestionAnswering"])))


@pytest.mark.parametrize("key", [key for key in IGNORED if key != "to_json_string"])  # the tokenizer is refused there
@pytest.mark.filterwarnings("ignore:.*auto_map.*never run")
def test_a_folder_is_read_by_transformers_own_code(folder: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    explained(changed(folder, **{key: IGNORED[key]}), capsys, 0)


def test_own_code_is_never_run_and_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own_code.py").write_text("raise SystemExit(3)")
    with pytest.warns(UserWarning, match=r"names code of its own \(auto_map\), which is never run"):
        TransformerNetwork.load(str(changed(folder, auto_map=IGNORED["auto_map"])))
    changed(folder, model_type="unheard-of")
    assert "own code (auto_map) is never run" in explained(folder, capsys, 2)


@pytest.mark.parametrize(("key", "value"), SIZES.items(), ids=IDS)
def test_a_folder_takes_no_memory_for_absurd_sizes(
    folder: Path, bounded: None, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    explained(changed(folder, **{key: value}), capsys, 2)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "", "{", "\x00", '"bert"', "{}"])
def test_a_folder_with_another_file(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (folder / "config.json").write_text(text)
    explained(folder, capsys, 2)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else", "peft_type": "LORA"}')
    with pytest.raises(InputError, match="holds an adapter"):
        TransformerNetwork.load(str(folder))


def test_weights_are_no_pickle_that_runs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Thing:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"a": Thing()}, folder / "pytorch_model.bin")
    explained(folder, capsys, 2)


def post_processor(number: int) -> dict[str, Any]:
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    special = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    named = {"[CLS]": {"id": "[CLS]", "ids": [number], "tokens": ["[CLS]"]}}
    return {"type": "TemplateProcessing", "single": [special, sequence], "pair": [sequence], "special_tokens": named}


TOKENIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "class": ("tokenizer_config.json", {"tokenizer_class": ["os.system"]}),
    "special id": ("tokenizer.json", {"post_processor": post_processor(2**31)}),
    "far id": ("tokenizer.json", {"post_processor": post_processor(99_999)}),
    "panic": ("tokenizer.json", {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}),
    "model": ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {"the": 2**32 - 1}, "unk_token": "the"}}),
    "list": ("tokenizer.json", {"model": []}),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_hostile_tokenizer_is_refused(
    folder: Path, bounded: None, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    (folder / "own_code.py").write_text("raise SystemExit(3)")
    file, values = TOKENIZERS[case]
    explained(changed(folder, file, **values), capsys, 2)


def test_own_code_of_a_tokenizer_is_never_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own_code.py").write_text("raise SystemExit(3)")
    own = {"AutoTokenizer": ["own_code.Thing", "own_code.Thing"]}
    explained(changed(folder, "tokenizer_config.json", auto_map=own, tokenizer_class="Unheard"), capsys, 0)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="There is no tokenizer to be loaded"):
        HuggingFaceProcessor(str(folder)).fit([])


def test_a_tokenizer_that_pads_to_an_absurd_length_does_not(folder: Path, bounded: None) -> None:
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    processor = HuggingFaceProcessor(str(changed(folder, "tokenizer.json", padding=padding)))
    processor.fit([])
    assert len(processor.encode([TEXT]).ids) < 30


@pytest.mark.parametrize("case", [case for case in TOKENIZERS if TOKENIZERS[case][0] == "tokenizer.json"])
def test_a_hostile_tokenizer_of_a_checkpoint_is_refused(folder: Path, case: str) -> None:
    processor = HuggingFaceProcessor(str(folder))
    processor.fit([])
    saved = processor.state()
    saved["tokenizer"] = json.dumps(json.loads(saved["tokenizer"]) | TOKENIZERS[case][1])
    with pytest.raises(InputError, match="tokenizer"):
        HuggingFaceProcessor.restored(saved).encode([TEXT])
    with pytest.raises(InputError, match="tokenizer"):
        HuggingFaceProcessor.restored(saved | {"tokenizer": 3})
    with pytest.raises(InputError, match="tokenizer"):
        HuggingFaceProcessor.restored(processor.state() | {"special": {"pad": "x"}})
