"""A transformer out of whatever a user calls one: a run, a checkpoint, or a model of Hugging Face."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning_attn.data.hf_processor import HuggingFacePairProcessor, HuggingFaceProcessor
from lightning_attn.data.processor import TextProcessor
from lightning_attn.data.windows import QuestionProcessor
from lightning_attn.errors import InputError
from lightning_attn.hub.classifier import architectures
from lightning_attn.hub.models import fits
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.networks.transformer.classifier import TransformerNetwork
from lightning_attn.networks.transformer.model import TransformerModel
from lightning_attn.networks.transformer.qa import TransformerQANetwork
from lightning_attn.runs.folder import CHECKPOINTS, CONFIG


def read_transformer(name: str) -> tuple[TransformerModel, HuggingFaceProcessor]:
    """The network, in evaluation mode on the CPU, and the processor that splits its texts.

    Args:
        name: The folder of a run, whose best checkpoint is taken, without one the last; a checkpoint; a folder with a
            Hugging Face model and its tokenizer; or the name of one on the Hub.

    Raises:
        InputError: There is none, it has no self-attention that could be looked at, or its tokenizer does not tell
            which characters a token comes from.
    """
    path = Path(name).expanduser()
    if _is_run(path):
        return _trained(_checkpoint(path))
    if _is_checkpoint(path):
        return _trained(path)
    place = _place(name)
    if _are(architectures(place), "QuestionAnswering"):
        return _answerer(place)
    return _classifier(HuggingFaceProcessor, place)  # one that was drawn at random is above all that is looked at


def read_hub_model(name: str, pairs: bool = False) -> tuple[TransformerModel, HuggingFaceProcessor]:
    """A model of Hugging Face that classifies texts or answers questions, in evaluation mode on the CPU.

    Args:
        name: Folder with the model and its tokenizer; or the name of one on the Hub.
        pairs: Whether a classifier reads a text with a query, as in inference.

    Raises:
        InputError: There is none, it has no classifier of its own, or it cannot be used; it says why.
    """
    path = Path(name).expanduser()
    if not name or _is_run(path) or _is_checkpoint(path):
        meant = "a run or a checkpoint of this project: give the checkpoint with --ckpt_path" if name else "empty"
        raise InputError(f"--model {name} is {meant}; --model takes a folder or a name of Hugging Face.")
    place = _place(name)
    kinds = architectures(place)
    network: TransformerModel
    processor: HuggingFaceProcessor
    if _are(kinds, "QuestionAnswering"):
        network, processor = _answerer(place)
    else:
        if kinds and not _are(kinds, "SequenceClassification"):
            raise _untrained(f"{name} is a {' and '.join(kinds)}")
        network, processor = _classifier(HuggingFacePairProcessor if pairs else HuggingFaceProcessor, place)
    if network.new_head:
        raise _untrained(f"The weights of {name} end below its last layer")
    return network, processor


def explained_by(name: str) -> str:
    """What ``lightning-attn explain`` takes for what :func:`read_transformer` read."""
    path = Path(name).expanduser()
    if _is_run(path):
        return f"--ckpt_path {_checkpoint(path)}"
    return f"--ckpt_path {name}" if _is_checkpoint(path) else f"--model {name}"


def _untrained(what: str) -> InputError:
    return InputError(
        f"{what}, without a classifier whose predictions could be explained: fine-tune it "
        "(configs/transformers/sst_self_attention.yaml), or take a model that classifies or answers questions."
    )


def _is_run(path: Path) -> bool:
    return path.is_dir() and ((path / CHECKPOINTS).is_dir() or (path / CONFIG).is_file())


def _is_checkpoint(path: Path) -> bool:
    return path.is_file() or path.suffix == ".ckpt"


def _are(kinds: Sequence[str], task: str) -> bool:
    return any(kind.endswith(f"For{task}") for kind in kinds)


def _place(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.exists() else name


def _answerer(place: str) -> tuple[TransformerQANetwork, QuestionProcessor]:
    processor = QuestionProcessor(place)
    processor.fit([])
    network = TransformerQANetwork(place).build(processor.schema()).eval()
    if network.max_length < processor.max_length:
        processor = QuestionProcessor(place, network.max_length, network.max_length // 4)
        processor.fit([])
    return network, processor


def _classifier(
    processor_class: type[HuggingFaceProcessor], place: str
) -> tuple[TransformerNetwork, HuggingFaceProcessor]:
    processor = processor_class(place)
    processor.fit([])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* has no classifier")  # callers look at network.new_head
        network = TransformerNetwork.load(place)
    size = network.model.get_input_embeddings().num_embeddings
    if not fits(processor.vocabulary_size, size):
        raise InputError(
            f"The tokenizer of {place} has {processor.vocabulary_size:,} tokens and its model {size:,}: it belongs to "
            "another model, or there is none in that folder; save the model's own beside it (save_pretrained)."
        )
    if network.max_length < processor.max_length:
        processor = processor_class(place, network.max_length)
        processor.fit([])
    return network, processor


def _checkpoint(folder: Path) -> Path:
    for name in ("best.ckpt", "last.ckpt"):
        if (file := folder / CHECKPOINTS / name).is_file():
            return file
    raise InputError(
        f"The run {folder} has no checkpoint: neither best.ckpt nor last.ckpt is in {folder / CHECKPOINTS}."
    )


def _trained(path: Path) -> tuple[TransformerModel, HuggingFaceProcessor]:
    trained = TrainedNetwork.read(path)
    network = trained.network
    if not isinstance(network, TransformerModel):
        raise InputError(
            f"The network of {path} is a {type(network).__name__}, which has no attention heads inside a transformer: "
            "give a run of a TransformerNetwork."
        )
    processor = TextProcessor.from_state(trained.data["processor"])
    if not isinstance(processor, HuggingFaceProcessor):
        raise InputError(
            f"The texts of {path} are split by a {type(processor).__name__}, which does not tell the characters of a "
            "token: train with HuggingFaceProcessor."
        )
    return network, processor
