"""What differs between the parameters of a network in training: `LayerRates`, `NoDecayOfNormsAndBiases`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn
from typing_extensions import override

from lightning_attn.errors import InputError
from lightning_attn.hub.models import HubModel
from lightning_attn.networks.base import AttentionNetwork

#: By parameter, settings of its group in the optimiser; ``rate`` is a share of the learning rate.
Settings = dict[nn.Parameter, dict[str, float]]

#: Lists of layers that a model may run several times each.
_SHARED = "albert_layer_groups"


class ParameterRule(ABC):
    """Gives some parameters settings of their own; several rules apply together."""

    @abstractmethod
    def settings(self, network: AttentionNetwork) -> Settings:
        """The parameters that differ, and in what: ``rate``, or any key of the optimiser's groups.

        Raises:
            InputError: The rule makes no sense for this network.
        """


class LayerRates(ParameterRule):
    """The lower a layer of a pretrained model, the lower its learning rate.

    With n layers, layer l (1 is the lowest) learns at ``decay ** (n + 1 - l)`` of the rate, the embeddings, which lie
    below all layers, at ``decay ** (n + 1)``, and what is above the layers (pooler, classifier, our attention and head,
    a mitigation's own parts) at the full rate. ALBERT, whose layers share their parameters, has as many layers as it
    has groups of them. What a mitigation slows down is slowed down further.

    Source: Howard and Ruder, ACL 2018, https://aclanthology.org/P18-1031 (one factor from layer to layer); Clark et
    al., ELECTRA, ICLR 2020, https://arxiv.org/abs/2003.10555 (embeddings as the lowest layer).

    Args:
        decay: From one layer to the one below, in (0, 1]; 0.8 to 0.95 is usual.

    Raises:
        InputError: ``decay`` is out of its range.
    """

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 < decay <= 1:
            raise InputError(f"LayerRates needs a decay in (0, 1], not {decay}.")
        self.decay = decay

    @override
    def settings(self, network: AttentionNetwork) -> Settings:
        models = [part for part in network.modules() if isinstance(part, HubModel)]
        if not models:
            raise InputError(
                f"LayerRates is for pretrained models, and {type(network).__name__} has none here: leave it out, or "
                "use PretrainedEncoder or TransformerNetwork."
            )
        slowed: Settings = {}
        for model in models:
            base = model.base_model
            path, layers = _stack(base)
            below = True
            # A base model creates its parts in the order in which they run.
            for name, part in base.named_children():
                if path.split(".")[0] == name:
                    below = False
                elif below:
                    slowed |= self._slowed(part, len(layers) + 1)
            for part in _projections(base, path):
                slowed |= self._slowed(part, len(layers) + 1)
            for number, layer in enumerate(layers):
                slowed |= self._slowed(layer, len(layers) - number)
        return slowed

    def _slowed(self, part: nn.Module, steps: int) -> Settings:
        return {parameter: {"rate": self.decay**steps} for parameter in part.parameters()}


class NoDecayOfNormsAndBiases(ParameterRule):
    """No weight decay for biases and for the parameters of normalisation: all that are vectors.

    Source: the released code of BERT, https://github.com/google-research/bert.
    """

    @override
    def settings(self, network: AttentionNetwork) -> Settings:
        return {parameter: {"weight_decay": 0.0} for parameter in network.parameters() if parameter.dim() <= 1}


def parameter_groups(module: nn.Module, network: AttentionNetwork, rules: Sequence[ParameterRule]) -> list[Any]:
    """Groups for an optimiser: parameters with the same settings together, in the order in which they first come.

    Args:
        module: Whose parameters learn; the network and whatever else there is.
        network: What the rules are asked about.
        rules: A later one overrules an earlier one where both set the same.

    Raises:
        InputError: A rule makes no sense for the network.
    """
    settings: Settings = {}
    for rule in rules:
        for parameter, own in rule.settings(network).items():
            settings[parameter] = settings.get(parameter, {}) | own
    groups: dict[tuple[tuple[str, float], ...], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        groups.setdefault(tuple(sorted(settings.get(parameter, {}).items())), []).append(parameter)
    return [{"params": members, **dict(key)} for key, members in groups.items()]


def _stack(base: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    """Name and members of the one list of layers of a base model, which is as long as the model is deep."""
    depth = int(base.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    lists = [(name, part) for name, part in base.named_modules() if isinstance(part, nn.ModuleList)]
    candidates = [(name, part) for name, part in lists if name.endswith(_SHARED)]
    candidates = candidates or [(name, part) for name, part in lists if len(part) == depth]
    outer = [
        (name, part) for name, part in candidates if not any(name.startswith(f"{other}.") for other, _ in candidates)
    ]
    if len(outer) != 1:
        raise InputError(f"LayerRates cannot tell the {depth} layers of a {type(base).__name__} apart: leave it out.")
    return outer[0][0], list(outer[0][1])


def _projections(base: nn.Module, path: str) -> list[nn.Module]:
    """What stands beside the list of layers and makes their input of embeddings, as in ALBERT."""
    stack, _, own = path.rpartition(".")
    if not stack:
        return []
    beside = base.get_submodule(stack).named_children()
    return [part for name, part in beside if name != own and name.startswith("embedding")]
