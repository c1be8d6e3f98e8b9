"""Variants under convolutions: only windows that a text does not have itself are computed, each once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from lightning_attn.ops.randomness import mix
from lightning_attn.perturbation.keys import KeyFastPath, SharedVectors, Variants
from lightning_attn.perturbation.signatures import OWNER, distinct


class WindowKeys(KeyFastPath):
    """A filter's response is a sum over the window of products of one embedding and one slice of the kernel.

    Every embedding is multiplied with every slice once per text. A window of a variant is then the sum of a few rows;
    windows in which nothing was removed are those of the text, and equal windows of several variants are summed once.

    Args:
        convolutions: Over ``(B, E, L)``, with "same" padding.
    """

    def __init__(self, convolutions: Iterable[nn.Module]) -> None:
        self.convolutions = [convolution for convolution in convolutions if isinstance(convolution, nn.Conv1d)]
        self.reach: int = max(convolution.kernel_size[0] for convolution in self.convolutions) // 2

    @staticmethod
    def supports(convolutions: Iterable[nn.Module]) -> bool:
        """Whether these are convolutions whose arithmetic is written here: no stride, dilation or groups."""
        return all(
            type(module) is nn.Conv1d
            and module.padding_mode == "zeros"
            and module.padding == (module.kernel_size[0] // 2,)
            and module.stride == module.dilation == (1,)
            and module.groups == 1
            for module in convolutions
        )

    @override
    def keys(self, embeddings: Tensor, variants: Variants) -> SharedVectors:
        count, length = variants.texts.valid.shape
        own = self._own_windows(variants.texts.valid)
        text = torch.arange(count, device=own.device).repeat_interleave(length)
        places = torch.arange(length, device=own.device) + (variants.row * length)[:, None]
        touched, windows = self._touched_windows(variants)
        owner = variants.row[touched // length]
        first, which = distinct(_signatures(windows, owner, length + 2))
        places.view(-1)[touched] = len(own) + which
        table = self._responses(embeddings, torch.cat([own, windows[first]]), torch.cat([text, owner[first]]))
        return SharedVectors(table, places)

    def _own_windows(self, valid: Tensor) -> Tensor:
        """Columns under the texts' own windows, shape ``(T * L, W)``; see :meth:`_responses`."""
        length = valid.shape[1]
        columns = torch.arange(-self.reach, length + self.reach, device=valid.device).unfold(0, 2 * self.reach + 1, 1)
        inside = (columns >= 0) & (columns < valid.sum(dim=1)[:, None, None])
        return torch.where(inside, columns, length + 1).flatten(0, 1)

    def _touched_windows(self, variants: Variants) -> tuple[Tensor, Tensor]:
        """Positions, in ``R * L``, with something removed within reach, and the columns under their windows.

        Returns:
            Shapes ``(M,)`` and ``(M, W)``; see :meth:`_responses`.
        """
        length, reach = variants.present.shape[1], self.reach
        missing = (variants.texts.valid[variants.row] & ~variants.intact).cumsum(dim=1, dtype=torch.int32)
        before = functional.pad(missing, (reach + 1, 0))[:, :length]
        within = missing[:, torch.arange(reach, length + reach, device=missing.device).clamp(max=length - 1)]
        # What is present stands side by side in a list, a variant's end next to the beginning of another.
        places = variants.present.flatten().nonzero().squeeze(-1)
        centres = (within != before).flatten()[places].nonzero().squeeze(-1)
        near = centres[:, None] + torch.arange(2 * reach + 1, device=places.device)
        neighbour = functional.pad(places, (reach, reach), value=-length)[near]
        touched = places[centres]
        same = neighbour.div(length, rounding_mode="floor") == (touched // length)[:, None]
        return touched, torch.where(same, variants.source.flatten()[neighbour.clamp(min=0)], length + 1)

    def _responses(self, embeddings: Tensor, windows: Tensor, text: Tensor) -> Tensor:
        """Filter responses, shape ``(U, H)``.

        Args:
            embeddings: See :meth:`keys`.
            windows: Column under each place of a window, shape ``(U, W)``: below L a word, L the blank, L + 1 nothing.
            text: Of each window, shape ``(U,)``.
        """
        columns = functional.pad(embeddings, (0, 0, 0, 1))
        places = text[:, None] * columns.shape[1] + windows
        columns = columns.flatten(0, 1)
        responses = []
        for convolution in self.convolutions:
            width = convolution.kernel_size[0]
            slices = convolution.weight.permute(2, 0, 1)  # place in the window, filter, embedding
            products = functional.linear(columns, slices.flatten(0, 1)).view(-1, convolution.out_channels)
            inner = places[:, self.reach - width // 2 : self.reach + width // 2 + 1]
            rows = inner * width + torch.arange(width, device=inner.device)
            response = functional.embedding_bag(rows, products, mode="sum")
            responses.append(response if convolution.bias is None else response + convolution.bias)
        return torch.cat(responses, dim=1).relu_()


def _signatures(windows: Tensor, text: Tensor, columns: int) -> Tensor:
    """A number for what each window shows, shape ``(M,)``, int64; different ones collide once in 2**64."""
    codes = mix(torch.arange(windows.shape[1] * columns, device=windows.device)).view(-1, columns)
    # Odd multiples of the text tell equal windows of different texts apart.
    signatures = text * OWNER
    for offset, code in enumerate(codes):
        signatures += code[windows[:, offset]]
    return signatures
