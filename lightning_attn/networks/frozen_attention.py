"""The attention of another trained network: `FrozenAttention`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_attn.attention.scorers import KeylessAttention
from lightning_attn.errors import InputError
from lightning_attn.types import Batch

if TYPE_CHECKING:  # a trained network owns an attention layer
    from typing_extensions import Self

    from lightning_attn.networks.base import AttentionNetwork
    from lightning_attn.networks.trained import TrainedNetwork


class FrozenAttention(KeylessAttention):
    """Weights that another, trained network gives to the same batch; they are not trained any further.

    Encoder and head learn under them: do the learned weights help a network that did not learn them? Most telling with
    the encoder :class:`TokenMLP`, which knows nothing else of the context. The other network reads the batch whenever
    this one does, perturbed texts too. It may be of any architecture, but must have been trained on the same data:
    token ids mean what they mean by its vocabulary. It is no part of this network and has none of its parameters, but
    every checkpoint of this network holds it, so that a loaded network needs no second file.

    Source: Wiegreffe and Pinter, EMNLP 2019, https://arxiv.org/abs/1908.04626, section 3.4, where the weights of a
    trained LSTM guide a network without context.

    Args:
        checkpoint: A checkpoint of the other network that ``lightning fit`` wrote; read when it is first needed, and
            not at all if this layer is loaded from a checkpoint. From Python, see also :meth:`from_network`.
    """

    def __init__(self, checkpoint: str) -> None:
        # Where the other network attends to special tokens, so does this one.
        super().__init__(attend_special=True)
        self.checkpoint = checkpoint
        self._trained: TrainedNetwork | None = None

    @classmethod
    def from_network(cls, network: AttentionNetwork) -> Self:
        """The attention of a network at hand; a copy of it, as it is now.

        To load a checkpoint of the network that this layer stands in, make it with ``from_network`` again.

        Args:
            network: Built.
        """
        import copy

        from lightning_attn.networks.trained import TrainedNetwork

        layer = cls("")
        layer._trained = TrainedNetwork(copy.deepcopy(network).eval().requires_grad_(False))
        return layer

    @classmethod
    def of(cls, network: AttentionNetwork) -> Self:
        """The name of :meth:`from_network` in 0.1.0."""
        warnings.warn("FrozenAttention.of is called from_network now.", DeprecationWarning, stacklevel=2)
        return cls.from_network(network)

    @property
    def trained(self) -> TrainedNetwork:
        """The other network, read now if it has not been needed before.

        Raises:
            InputError: Its checkpoint cannot be read.
        """
        from lightning_attn.networks.trained import TrainedNetwork

        if self._trained is None:
            self._trained = TrainedNetwork.read(self.checkpoint)
        return self._trained

    def raw_scores(self, keys: Tensor, batch: Batch) -> Tensor:
        """Logarithms of the other network's weights, shape ``(B, L)``: softmax gives the weights back.

        Raises:
            InputError: The batch holds what the other network was not trained on.
        """
        network = self.trained.network.to(batch.device)
        self._check(batch, network.schema.vocabulary_size)
        with torch.no_grad():
            # What this network made of the query is nothing to the other one, which reads it for itself.
            weights = network(batch.replace(query_vector=None)).attention.to(keys.dtype)
        return torch.where(weights > 0, weights.log(), torch.finfo(keys.dtype).min)

    def attendable(self, batch: Batch) -> Batch:
        """What the other network attends to."""
        return self.trained.network.attendable(batch)

    def _check(self, batch: Batch, vocabulary_size: int | None) -> None:
        inputs = batch.inputs
        if vocabulary_size is None:
            theirs, fits = "features of instances", inputs.is_floating_point()
        else:
            theirs = f"a vocabulary of {vocabulary_size} tokens"
            fits = not inputs.is_floating_point() and (not inputs.numel() or int(inputs.max()) < vocabulary_size)
        if not fits:
            raise InputError(
                f"FrozenAttention cannot use the network of {self.checkpoint or 'the other model'}: it was trained on "
                f"{theirs}, and these data do not fit that; train both networks on the same data."
            )

    def get_extra_state(self) -> dict[str, Any]:
        """The other network, for the checkpoint."""
        return self.trained.state()

    def set_extra_state(self, state: Any) -> None:
        """Restore :meth:`get_extra_state`.

        Raises:
            InputError: The other network was made in Python, and this layer was not made with :meth:`from_network`.
        """
        from lightning_attn.networks.trained import TrainedNetwork

        if state["specification"] is not None:
            self._trained = TrainedNetwork.from_state(state)
        elif self._trained is not None:
            self._trained.network.load_inference_state(state["weights"])
        else:
            raise InputError(
                "The frozen attention in this checkpoint is that of a network made in Python, which the checkpoint does"
                " not describe: make the network with FrozenAttention.from_network(network) and load the "
                "checkpoint into that."
            )
