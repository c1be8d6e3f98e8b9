"""Encoders of the Hugging Face Hub under the attention of this project: `PretrainedEncoder`."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from lightning_attn.encoders.base import Encoder
from lightning_attn.evaluation import evaluating
from lightning_attn.types import Batch, DataSchema, InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from typing_extensions import Self

#: Embeddings are often filled up to a multiple of 8, 64 or 128 rows, which no token has.
_FILLED_UP = 128


class PretrainedEncoder(Encoder):
    """A pretrained transformer encoder: keys and contextual values are the hidden states of one of its layers.

    Any encoder that the Hub has as a masked language model, reads ``inputs_embeds`` in both directions and leaves
    padding unread: BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, ALBERT, MiniLM and so on. It is tried out once when it
    is loaded, and refused by name otherwise. Layers above the chosen one and a pooler are left out. Gradients and
    ablations act on the word embeddings, before positions are added.

    Give the data the same name: ``HuggingFaceProcessor(name_or_path)``. A checkpoint holds the weights, and the
    configuration in ``config``, and needs neither the Hub nor the folder. Nothing that is loaded runs code.

    Args:
        name_or_path: Name of a model on the Hub, or a folder with ``config.json`` and weights.
        layer: Layer whose states are used: 1 is the lowest, -1 the highest.
        values: See :class:`Encoder`; ``local`` makes the value of a position from its word embedding alone.
        freeze: Whether the pretrained part stays as it is, dropout off; otherwise all of it is fine-tuned.
        dropout: See :class:`Encoder`; the pretrained part has its own besides.
        config: The model's configuration, plain values as in ``config.json``. Weights are not loaded then, but start at
            random: a checkpoint sets this, and brings the weights. None reads both from ``name_or_path``.
    """

    backbone: PreTrainedModel

    def __init__(
        self,
        name_or_path: str,
        layer: int = -1,
        values: Literal["contextual", "local"] = "contextual",
        freeze: bool = False,
        dropout: float = 0.0,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(0, 0, dropout=dropout)  # sizes are known once the model is
        self.name_or_path = name_or_path
        self.layer = layer
        self.values = values
        self.freeze = freeze
        self.config = config

    def make_layers(self, schema: DataSchema) -> None:
        """Load the model, or make it from ``config``.

        Raises:
            InputError: There is no such model; it is no encoder, or one that cannot be used here; it has no such
                layer; or the data were split by another tokenizer.
        """
        if schema.vocabulary_size is None:
            raise InputError(f"{type(self).__name__} reads token ids, but the data are features of instances.")
        with _silent():
            found = self._read_config()
            self._check_kind(found)
            rows = int(found.vocab_size)
            if not 0 <= rows - schema.vocabulary_size < _FILLED_UP:
                raise InputError(
                    f"The data have {schema.vocabulary_size:,} token ids and {self.name_or_path!r} has {rows:,}: they "
                    "were split by another tokenizer; set data.init_args.processor to HuggingFaceProcessor with "
                    f"name_or_path {self.name_or_path}."
                )
            loaded = self._load(self._cut(found))
        if getattr(loaded, "pooler", None) is not None:
            loaded.pooler = None  # nothing reads it, and DDP would wait for its gradients
        self.backbone = loaded.requires_grad_(not self.freeze)
        self.embedding_size = self._words.embedding_dim
        self.size = int(found.hidden_size)
        self.local = nn.Linear(self.embedding_size, self.size) if self.values == "local" else None
        self._longest = _longest(loaded)
        if self.config is None:
            self._try_out()
        self.config = json.loads(found.to_json_string(use_diff=False))
        self.train(self.training)  # loaded models come in evaluation mode, and would stay in it (no dropout)

    @property
    def _words(self) -> nn.Embedding:
        return cast(nn.Embedding, self.backbone.get_input_embeddings())

    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings of the model, shape ``(B, L, E)``; it adds positions to them later."""
        return cast(Tensor, self._words(batch.inputs))

    def contextualise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Hidden states of the layer, shape ``(B, L, H)``; padding is never read.

        Raises:
            InputError: The batch is longer than the model can read.
        """
        if embeddings.shape[1] > self._longest:
            raise InputError(
                f"A text has {embeddings.shape[1]} tokens and {self.name_or_path!r} reads {self._longest}: set "
                f"data.init_args.processor.init_args.max_length to {self._longest}."
            )
        # An example that is all padding is read as one position: attention over nothing is undefined.
        first = torch.arange(embeddings.shape[1], device=embeddings.device) == 0
        readable = batch.valid | first
        # Positions are counted from the left by the model itself: right, because texts are padded on the right.
        states = self.backbone(inputs_embeds=embeddings, attention_mask=readable.long()).last_hidden_state
        return cast(Tensor, states)

    def train(self, mode: bool = True) -> Self:
        """As always, but what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.freeze and hasattr(self, "backbone"):
            self.backbone.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As always, but what is frozen stays frozen: a mitigation lets the parts learn again that it froze."""
        super().requires_grad_(requires_grad)
        if self.freeze and hasattr(self, "backbone"):
            self.backbone.requires_grad_(False)
        return self

    def value_path(self) -> list[nn.Module]:
        """Modules that the values depend on: all, unless values are local; what is frozen is not handed out."""
        if self.local is None:
            return [self]
        return [self.dropout, self.local] if self.freeze else [self._words, self.dropout, self.local]

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Not possible: the model has its own.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{self.name_or_path!r} has word embeddings of its own: leave data.init_args.word_vectors out."
        )

    def _read_config(self) -> PretrainedConfig:
        from transformers import AutoConfig  # takes seconds to import

        if self.config is not None:
            return AutoConfig.for_model(**copy.deepcopy(self.config))
        try:
            return AutoConfig.from_pretrained(self.name_or_path)
        except (OSError, ValueError, KeyError) as error:
            raise self._nothing_there(error) from error

    def _check_kind(self, found: PretrainedConfig) -> None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        kind = found.model_type
        decodes = found.is_encoder_decoder or getattr(found, "is_decoder", False)
        if decodes or kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise self._unusable(kind, "which is no bidirectional encoder of texts")

    def _cut(self, found: PretrainedConfig) -> PretrainedConfig:
        """The configuration without the layers above the chosen one."""
        layers = int(found.num_hidden_layers)
        chosen = self.layer if self.layer > 0 else layers + 1 + self.layer
        if self.layer == 0 or not 1 <= chosen <= layers:
            raise InputError(
                f"{self.name_or_path!r} has {layers} layers: layer must be 1 to {layers}, or -{layers} to -1, not "
                f"{self.layer}."
            )
        cut = copy.deepcopy(found)
        try:
            cut.num_hidden_layers = chosen
        except NotImplementedError as error:
            raise self._unusable(found.model_type, "whose layers cannot be counted") from error
        return cut

    def _load(self, config: PretrainedConfig) -> PreTrainedModel:
        from safetensors import SafetensorError
        from transformers import AutoModel

        if self.config is not None:
            return AutoModel.from_config(config)
        try:
            model, info = AutoModel.from_pretrained(
                self.name_or_path, config=config, weights_only=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise self._nothing_there(error) from error
        missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise InputError(f"{self.name_or_path!r} lacks weights of its model: those of {', '.join(missing[:3])}.")
        return cast("PreTrainedModel", model)

    def _nothing_there(self, error: Exception) -> InputError:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        return InputError(f"There is no encoder to be loaded from {self.name_or_path!r} ({reason}).")

    def _try_out(self) -> None:
        """Read a few tokens alone and padded, and with another last token.

        Raises:
            InputError: The model does not do what the networks rely on.
        """
        kind = self.backbone.config.model_type
        takes = inspect.signature(self.backbone.forward).parameters
        if not {"inputs_embeds", "attention_mask"} <= takes.keys():
            raise self._unusable(kind, "which takes no embeddings, or reads padding")
        ids = torch.arange(8)[None] % self._words.num_embeddings
        valid = torch.ones_like(ids, dtype=torch.bool)
        with torch.inference_mode(False), torch.no_grad(), evaluating(self):
            embeddings = self._words(ids)
            changed = torch.cat([embeddings[:, :4], -embeddings[:, 4:]], dim=1)
            try:
                alone = self._states(embeddings[:, :5], valid[:, :5])
                other = self._states(changed[:, :5], valid[:, :5])
                among = self._states(embeddings, torch.arange(8)[None] < 5)[:, :5]
            except (TypeError, ValueError, IndexError, RuntimeError) as error:
                raise self._unusable(kind, f"which fails on a text ({' '.join(str(error).split())})") from error
        if torch.equal(alone[:, 0], other[:, 0]):
            raise self._unusable(kind, "which reads from left to right only")
        if not torch.allclose(alone, among, atol=1e-3, rtol=1e-3):
            raise self._unusable(kind, "whose states change when a text is padded")

    def _unusable(self, kind: str, reason: str) -> InputError:
        return InputError(
            f"{self.name_or_path!r} is a {kind} model, {reason}: take an encoder such as BERT, RoBERTa, DistilBERT, "
            "ELECTRA, ALBERT or MiniLM."
        )

    def _states(self, embeddings: Tensor, valid: Tensor) -> Tensor:
        nothing = torch.zeros_like(valid)
        row = torch.zeros(len(valid), dtype=torch.long)
        return self.contextualise(embeddings, Batch(nothing.long(), valid, nothing, row, row))


def complete_specification(specification: Any, network: nn.Module) -> Any:
    """The specification of a network with the configurations of its pretrained encoders filled in.

    A checkpoint stores this, so that the network can be made again without the Hub.

    Args:
        specification: ``{"class_path": ..., "init_args": ...}``, or a part of one; it is not changed.
        network: The network that was made by it, built.
    """
    known = {part.name_or_path: part.config for part in network.modules() if isinstance(part, PretrainedEncoder)}
    return _completed(specification, known) if known else specification


def _completed(part: Any, known: dict[str, dict[str, Any] | None]) -> Any:
    if isinstance(part, list):
        return [_completed(item, known) for item in part]
    if not isinstance(part, dict):
        return part
    filled = {name: _completed(value, known) for name, value in part.items()}
    if filled.get("name_or_path") in known:  # the arguments of such an encoder
        filled["config"] = known[filled["name_or_path"]]
    return filled


def _longest(model: PreTrainedModel) -> int:
    """Most tokens that the model can read; without a table of positions there is no bound."""
    bound = 1 << 30
    for name, module in model.named_modules():
        if "position" in name.rsplit(".", 1)[-1] and isinstance(module, nn.Embedding):
            # RoBERTa and its kin begin to count after the padding id.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            bound = min(bound, module.num_embeddings - offset)
    return bound


@contextmanager
def _silent() -> Iterator[None]:
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
