"""A transformer out of whatever a user calls one: a run, a checkpoint, or a model of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_attn.data.hf_processor import HuggingFacePairProcessor, HuggingFaceProcessor
from lightning_attn.data.processor import TextProcessor
from lightning_attn.data.windows import QuestionProcessor
from lightning_attn.networks.hub_classifier import architectures
from lightning_attn.networks.transformer import TransformerNetwork
from lightning_attn.networks.transformer_model import TransformerModel
from lightning_attn.networks.transformer_qa import TransformerQANetwork
from lightning_attn.run_folder import CHECKPOINTS, CONFIG
from lightning_attn.trained import TrainedNetwork
from lightning_attn.types import InputError


def read_transformer(given: str) -> tuple[TransformerModel, HuggingFaceProcessor]:
    """The network, in evaluation mode on the CPU, and the processor that splits its texts.

    Args:
        given: The folder of a run, whose best checkpoint is taken, without one the last; a checkpoint; a folder with a
            Hugging Face model and its tokenizer; or the name of one on the Hub.

    Raises:
        InputError: There is none, it has no self-attention that could be looked at, or its tokenizer does not tell
            which characters a token comes from.
    """
    path = Path(given).expanduser()
    if path.is_dir() and ((path / CHECKPOINTS).is_dir() or (path / CONFIG).is_file()):
        return _trained(_checkpoint(path))
    if path.is_file() or path.suffix == ".ckpt":
        return _trained(path)
    place = _place(given)
    if _are(architectures(place), "QuestionAnswering"):
        return _answerer(place)
    return _classifier(HuggingFaceProcessor(place))


def read_hub_model(given: str, pairs: bool = False) -> tuple[TransformerModel, HuggingFaceProcessor]:
    """A model of Hugging Face that classifies texts or answers questions, in evaluation mode on the CPU.

    Args:
        given: Folder with the model and its tokenizer; or the name of one on the Hub.
        pairs: Whether a classifier reads a text with a query, as in inference.

    Raises:
        InputError: There is none, it has no classifier of its own, or it cannot be used; it says why.
    """
    place = _place(given)
    kinds = architectures(place)
    if _are(kinds, "QuestionAnswering"):
        return _answerer(place)
    if kinds and not _are(kinds, "SequenceClassification"):
        raise InputError(
            f"{given} is a {' and '.join(kinds)}, without a classifier whose predictions could be explained: fine-tune "
            "it (configs/transformers/sst_self_attention.yaml), or take a model that classifies or answers questions."
        )
    return _classifier((HuggingFacePairProcessor if pairs else HuggingFaceProcessor)(place))


def _are(kinds: Sequence[str], task: str) -> bool:
    return any(kind.endswith(f"For{task}") for kind in kinds)


def _place(given: str) -> str:
    path = Path(given).expanduser()
    return str(path) if path.exists() else given


def _answerer(place: str) -> tuple[TransformerQANetwork, QuestionProcessor]:
    processor = QuestionProcessor(place)
    processor.fit([])
    return TransformerQANetwork(place).build(processor.schema()).eval(), processor


def _classifier(processor: HuggingFaceProcessor) -> tuple[TransformerNetwork, HuggingFaceProcessor]:
    processor.fit([])
    network = TransformerNetwork.load(processor.name_or_path)
    if processor.vocabulary_size > (size := network.model.get_input_embeddings().num_embeddings):
        raise InputError(
            f"The tokenizer of {processor.name_or_path} has {processor.vocabulary_size:,} tokens, and its model "
            f"{size:,}."
        )
    return network, processor


def _checkpoint(folder: Path) -> Path:
    for name in ("best.ckpt", "last.ckpt"):
        if (found := folder / CHECKPOINTS / name).is_file():
            return found
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
