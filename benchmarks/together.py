"""Many trainings of one network on one data set, side by side: as many Lightning trainings, in a fraction of the time.

Small networks leave a processor idle between operations. Here K networks that differ in their start alone go through
the same batches together, every operation on all of them at once (``torch.func.vmap``). Each ends with the weights of
its epoch of lowest validation loss, as ``best.ckpt`` has them. A test holds this to the same number of Trainers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from lightning_attn.data.bags import SetDataModule
from lightning_attn.networks.base import AttentionNetwork
from lightning_attn.types import Batch

Parameters = dict[str, Tensor]
CHUNK = 128  # bags evaluated at a time


@dataclass
class Together:
    """K networks of one architecture, their parameters stacked.

    Attributes:
        network: One of them, which lends its code.
        parameters: By name, shape ``(K, ...)``.
    """

    network: AttentionNetwork
    parameters: Parameters

    @classmethod
    def from_networks(cls, networks: Sequence[AttentionNetwork]) -> Together:
        """Stack built networks without buffers, dropout or mitigation.

        Raises:
            ValueError: They have buffers, which would be shared.
        """
        parameters, buffers = stack_module_state(list(networks))
        if buffers:
            raise ValueError(f"These networks have buffers, which would not be trained: {', '.join(buffers)}.")
        return cls(copy.deepcopy(networks[0]), {name: value.detach() for name, value in parameters.items()})

    def logits(self, batch: Batch) -> Tensor:
        """Shape ``(K, B, C)``."""
        return vmap(lambda own: self._run(own, batch)[0])(self.parameters)

    def outputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits ``(K, B, C)`` and attention scores ``(K, B, L)`` of a padded batch, without gradients."""
        with torch.no_grad():
            return vmap(lambda own: self._run(own, batch))(self.parameters)

    def network_of(self, number: int) -> AttentionNetwork:
        """A copy of one of them, in evaluation mode."""
        alone = copy.deepcopy(self.network)
        alone.load_state_dict({name: value[number] for name, value in self.parameters.items()})
        return alone.eval()

    def _run(self, parameters: Parameters, batch: Batch) -> tuple[Tensor, Tensor]:
        output = functional_call(self.network, parameters, (batch,))
        return output.logits, output.scores


def started(make: Callable[[], AttentionNetwork], data: SetDataModule, seeds: Iterable[int]) -> list[AttentionNetwork]:
    """Untrained networks, each drawn from its seed."""
    networks = []
    for seed in seeds:
        torch.manual_seed(seed)
        networks.append(make().build(data.schema))
    return networks


def train_together(
    networks: Sequence[AttentionNetwork], data: SetDataModule, epochs: int, lr: float, weight_decay: float
) -> Together:
    """Train networks as that many Trainers with AdamW would, and take the best epoch of each.

    Args:
        networks: Built, of one architecture.
        data: Set up; its batches and their order are those that a Trainer gets.
        epochs: Number of passes through the training bags.
        lr: Learning rate.
        weight_decay: See ``torch.optim.AdamW``.
    """
    together = Together.from_networks(networks)
    for value in together.parameters.values():
        value.requires_grad_()
    optimizer = torch.optim.AdamW(together.parameters.values(), lr=lr, weight_decay=weight_decay)
    train, held = whole(data, "train"), whole(data, "val")
    loader = data.train_dataloader()
    best = torch.full((len(networks),), torch.inf)
    kept = {name: value.detach().clone() for name, value in together.parameters.items()}
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for rows in loader.sampler:
            batch = part(train, torch.as_tensor(rows))
            optimizer.zero_grad()
            losses(together.logits(batch), batch.target).sum().backward()
            optimizer.step()
        with torch.no_grad():
            parts = [part(held, rows) for rows in torch.arange(len(held)).split(CHUNK)]
            summed = [losses(together.logits(batch), batch.target) * len(batch) for batch in parts]
            loss = torch.stack(summed).sum(dim=0) / len(held)
            better = loss < best
            best = torch.where(better, loss, best)
            for name, value in together.parameters.items():
                kept[name] = torch.where(better.view(-1, *[1] * (value.dim() - 1)), value, kept[name])
    return Together(together.network, kept)


def losses(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each network, shape ``(K,)``, from logits ``(K, B, C)`` and classes ``(B,)``."""
    return vmap(F.cross_entropy, in_dims=(0, None))(logits, target)


def whole(data: SetDataModule, split: str) -> Batch:
    """A split as one padded batch."""
    dataset = data.dataset(split)
    return dataset[range(len(dataset))].padded()


def part(batch: Batch, rows: Tensor) -> Batch:
    """Some examples of a padded batch, without columns that are padding only."""
    chosen = batch.select(rows)
    length = int(chosen.valid.sum(dim=1).max())
    return chosen.replace(
        inputs=chosen.inputs[:, :length],
        valid=chosen.valid[:, :length],
        special=chosen.special[:, :length],
        evidence=None if chosen.evidence is None else chosen.evidence[:, :length],
    )
