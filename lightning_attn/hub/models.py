"""What all pretrained models of the Hugging Face Hub have in common here: `HubModel`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_attn.errors import InputError
from lightning_attn.hub.configuration import find_adapter, make_configuration, stored_values
from lightning_attn.types import Batch, DataSchema

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

#: Embeddings are often filled up to a multiple of 8, 64 or 128 rows, which no token has.
_FILLED_UP = 128


class HubModel(ABC):
    """A module around a pretrained encoder, which is named, checked and stored in one way.

    Attributes:
        name_or_path: Name of a model on the Hub, or a folder with ``config.json`` and weights.
        config: The model's configuration, plain values as in ``config.json``; None until it is read. A checkpoint
            holds it, see :func:`complete_specification`.
        new_head: Whether what is above the encoder was drawn at random, because the weights have nothing for it.
    """

    name_or_path: str
    config: dict[str, Any] | None
    new_head: bool = False
    _longest: int

    @property
    @abstractmethod
    def base_model(self) -> nn.Module:
        """Embeddings and layers of the model, without what is above them."""

    def _token_types(self, batch: Batch) -> dict[str, Tensor]:
        """Token types of the texts of a pair, for a model that has them."""
        types = getattr(self.base_model.config, "type_vocab_size", 0) or 0
        return {} if batch.segments is None or types < 2 else {"token_type_ids": batch.segments}

    def _checkpoint_gradients(
        self, model: PreTrainedModel, recomputing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Let every layer forget what it computed in training, and compute it again when gradients are needed.

        Args:
            model: What is trained.
            recomputing: What a layer is to be computed in the second time.

        Raises:
            InputError: The model cannot do it.
        """
        if not model.supports_gradient_checkpointing:
            raise InputError(
                f"{self.name_or_path!r} is a {model.config.model_type} model, which has no gradient checkpointing: "
                "leave gradient_checkpointing out."
            )
        # transformers renamed it in version 5, and warns of the old name
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False, "context_fn": lambda: (nullcontext(), recomputing())})

    def _read_config(self) -> PretrainedConfig:
        """The configuration of an encoder: of ``config``, or of the file that the user named.

        Raises:
            InputError: There is none; it is no encoder's; or it wants code run, or has absurd sizes.
        """
        with self._loading():
            from_file = self.config is None
            values = stored_values(self.name_or_path) if self.config is None else self.config
            if not isinstance(kind := values.get("model_type"), str):
                raise ValueError("no config.json with a model_type")
            self._check_kind(kind, own_code=bool(values.get("auto_map")))
            config = make_configuration(values, self.name_or_path, from_file)
            self._check_kind(kind, decodes=config.is_encoder_decoder or getattr(config, "is_decoder", False))
            if from_file and find_adapter(self.name_or_path):
                raise InputError(
                    f"{self.name_or_path!r} holds an adapter (adapter_config.json), which is not applied here: merge "
                    "it into the model (merge_and_unload) and save that."
                )
            return config

    def _check_kind(self, kind: str, decodes: bool = False, own_code: bool = False) -> None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        if decodes or kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            reason = (
                "whose own code (auto_map) is never run" if own_code else "which is no bidirectional encoder of texts"
            )
            raise self._unusable(kind, reason)

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """One sentence for whatever transformers raises of files that anybody may have written."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise self._nothing_there(error) from error

    def _vocabulary(self, schema: DataSchema) -> int:
        """Number of token ids that the data have."""
        if schema.vocabulary_size is None:
            raise InputError(f"{type(self).__name__} reads token ids, but the data are features of instances.")
        return schema.vocabulary_size

    def _check_vocabulary(self, config: PretrainedConfig, size: int) -> None:
        rows = int(config.vocab_size)
        if not fits(size, rows):
            raise InputError(
                f"The data have {size:,} token ids and {self.name_or_path!r} has {rows:,}: they "
                "were split by another tokenizer; set data.init_args.processor to HuggingFaceProcessor with "
                f"name_or_path {self.name_or_path}."
            )

    def _check_length(self, length: int) -> None:
        if length > self._longest:
            raise InputError(
                f"A text has {length} tokens and {self.name_or_path!r} reads {self._longest}: set "
                f"data.init_args.processor.init_args.max_length to {self._longest}."
            )

    def _nothing_there(self, error: Exception) -> InputError:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        return InputError(f"There is no encoder to be loaded from {self.name_or_path!r} ({reason}).")

    def _unusable(self, kind: str, reason: str) -> InputError:
        return InputError(
            f"{self.name_or_path!r} is a {kind} model, {reason}: take an encoder such as BERT, RoBERTa, DistilBERT, "
            "ELECTRA, ALBERT or MiniLM."
        )


def fits(tokens: int, rows: int) -> bool:
    """Whether a tokenizer of so many tokens may belong to a model whose embedding has so many rows."""
    return 0 <= rows - tokens < _FILLED_UP


def readable(valid: Tensor) -> Tensor:
    """The attention mask for a model, shape ``(B, L)``, int64, from ``Batch.valid``.

    An example that is all padding is read as one position: attention over nothing is undefined. Positions are counted
    from the left by the model itself: right, because texts are padded on the right.
    """
    return (valid | (torch.arange(valid.shape[1], device=valid.device) == 0)).long()


def longest(model: PreTrainedModel) -> int:
    """Most tokens that the model can read; without a table of positions there is no bound."""
    bound = 1 << 30
    for name, module in model.named_modules():
        if "position" in name.rsplit(".", 1)[-1] and isinstance(module, nn.Embedding):
            # RoBERTa and its kin begin to count after the padding id.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            bound = min(bound, module.num_embeddings - offset)
    return bound


@contextmanager
def silent() -> Iterator[None]:
    """Without the reports of transformers on parts that are left out on purpose."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def complete_specification(specification: Any, network: nn.Module) -> Any:
    """The specification of a network with the configurations of its pretrained models filled in.

    A checkpoint stores this, so that the network can be made again without the Hub.

    Args:
        specification: ``{"class_path": ..., "init_args": ...}``, or a part of one; it is not changed.
        network: The network that was made by it, built.
    """
    parts = [part for part in network.modules() if isinstance(part, HubModel)]
    configurations = {(type(part).__name__, part.name_or_path): part.config for part in parts}
    return _completed(specification, configurations) if configurations else specification


def _completed(part: Any, configurations: dict[tuple[str, str], dict[str, Any] | None]) -> Any:
    if isinstance(part, list):
        return [_completed(item, configurations) for item in part]
    if not isinstance(part, dict):
        return part
    filled = {name: _completed(value, configurations) for name, value in part.items()}
    arguments = filled.get("init_args")
    if isinstance(filled.get("class_path"), str) and isinstance(arguments, dict):
        key = filled["class_path"].rpartition(".")[2], arguments.get("name_or_path")
        if key in configurations:
            filled["init_args"] = {**arguments, "config": configurations[key]}
    return filled
