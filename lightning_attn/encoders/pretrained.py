"""Encoders of the Hugging Face Hub under the attention of this project: `PretrainedEncoder`."""

from __future__ import annotations

import copy
import inspect
import json
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attn.encoders.base import Encoder
from lightning_attn.errors import InputError
from lightning_attn.hub.configuration import check_size
from lightning_attn.hub.models import HubModel, longest, readable, silent
from lightning_attn.ops.evaluation import evaluating
from lightning_attn.types import Batch, DataSchema

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from typing_extensions import Self


class PretrainedEncoder(HubModel, Encoder):
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
        gradient_checkpointing: Whether layers are computed a second time for their gradients instead of being kept:
            about a quarter slower, for long texts or large batches that do not fit otherwise. The same gradients.
    """

    pretrained = True
    backbone: PreTrainedModel

    def __init__(
        self,
        name_or_path: str,
        layer: int = -1,
        values: Literal["contextual", "local"] = "contextual",
        freeze: bool = False,
        dropout: float = 0.0,
        config: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(0, 0, dropout=dropout)  # sizes are known once the model is
        self.name_or_path = name_or_path
        self.layer = layer
        self.values = values
        self.freeze = freeze
        self.gradient_checkpointing = gradient_checkpointing
        self.config = config

    def make_layers(self, schema: DataSchema) -> None:
        """Load the model, or make it from ``config``.

        Raises:
            InputError: There is no such model; it is no encoder, or one that cannot be used here; it has no such
                layer; or the data were split by another tokenizer.
        """
        size = self._vocabulary(schema)
        with silent():
            config = self._read_config()
            self._check_vocabulary(config, size)
            loaded = self._load(self._cut(config))
        if getattr(loaded, "pooler", None) is not None:
            loaded.pooler = None  # nothing reads it, and DDP would wait for its gradients
        if self.gradient_checkpointing:
            self._checkpoint_gradients(loaded)
        self.backbone = loaded.requires_grad_(not self.freeze)
        self.embedding_size = self.words.embedding_dim
        self.size = int(config.hidden_size)
        self.local = nn.Linear(self.embedding_size, self.size) if self.values == "local" else None
        self._longest = longest(loaded)
        if self.config is None:
            self._try_out()
        self.config = json.loads(config.to_json_string(use_diff=False))
        self.train(self.training)  # loaded models come in evaluation mode, and would stay in it (no dropout)

    @property
    def base_model(self) -> nn.Module:
        """Embeddings and layers."""
        return cast(nn.Module, self.backbone)

    @property
    @override
    def words(self) -> nn.Embedding:
        return cast(nn.Embedding, self.backbone.get_input_embeddings())

    def embed(self, batch: Batch) -> Tensor:
        """Word embeddings of the model, shape ``(B, L, E)``; it adds positions to them later."""
        return cast(Tensor, self.words(batch.inputs))

    def contextualise(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Hidden states of the layer, shape ``(B, L, H)``; padding is never read.

        Raises:
            InputError: The batch is longer than the model can read.
        """
        return cast(Tensor, self._read(embeddings, batch).last_hidden_state)

    def hidden_states(self, embeddings: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """States below the first layer and after each one, shape ``(B, L, H)``; arguments as in :meth:`contextualise`.

        Raises:
            InputError: The batch is longer than the model can read.
        """
        states: tuple[Tensor, ...] = self._read(embeddings, batch, output_hidden_states=True).hidden_states
        return states

    def _read(self, embeddings: Tensor, batch: Batch, **options: bool) -> Any:
        self._check_length(embeddings.shape[1])
        mask = readable(batch.valid)
        return self.backbone(inputs_embeds=embeddings, attention_mask=mask, **self._token_types(batch), **options)

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
        return [self.dropout, self.local] if self.freeze else [self.words, self.dropout, self.local]

    def load_word_vectors(self, vectors: Tensor) -> None:
        """Not possible: the model has its own.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"{self.name_or_path!r} has word embeddings of its own: leave data.init_args.word_vectors out."
        )

    def _cut(self, config: PretrainedConfig) -> PretrainedConfig:
        """The configuration without the layers above the chosen one."""
        layers = int(config.num_hidden_layers)
        layer = self.layer if self.layer > 0 else layers + 1 + self.layer
        if self.layer == 0 or not 1 <= layer <= layers:
            raise InputError(
                f"{self.name_or_path!r} has {layers} layers: layer must be 1 to {layers}, or -{layers} to -1, not "
                f"{self.layer}."
            )
        cut = copy.deepcopy(config)
        try:
            cut.num_hidden_layers = layer
        except NotImplementedError as error:
            raise self._unusable(config.model_type, "whose layers cannot be counted") from error
        return cut

    def _load(self, config: PretrainedConfig) -> PreTrainedModel:
        from transformers import AutoModel

        with self._loading():
            check_size(AutoModel, config, self.name_or_path)
            if self.config is not None:
                return AutoModel.from_config(config)
            model, info = AutoModel.from_pretrained(
                self.name_or_path, config=config, weights_only=True, output_loading_info=True, trust_remote_code=False
            )
        missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise InputError(f"{self.name_or_path!r} lacks weights of its model: those of {', '.join(missing[:3])}.")
        return cast("PreTrainedModel", model)

    def _try_out(self) -> None:
        """Read a few tokens alone and padded, and with another last token.

        Raises:
            InputError: The model does not do what the networks rely on.
        """
        kind = self.backbone.config.model_type
        takes = inspect.signature(self.backbone.forward).parameters
        if not {"inputs_embeds", "attention_mask"} <= takes.keys():
            raise self._unusable(kind, "which takes no embeddings, or reads padding")
        ids = torch.arange(8)[None] % self.words.num_embeddings
        valid = torch.ones_like(ids, dtype=torch.bool)
        with torch.inference_mode(False), torch.no_grad(), evaluating(self):
            embeddings = self.words(ids)
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

    def _states(self, embeddings: Tensor, valid: Tensor) -> Tensor:
        nothing = torch.zeros_like(valid)
        row = torch.zeros(len(valid), dtype=torch.long)
        return self.contextualise(embeddings, Batch(nothing.long(), valid, nothing, row, row))
