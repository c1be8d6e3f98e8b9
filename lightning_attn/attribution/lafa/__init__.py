"""Training texts near a text, as the network itself sees them, and what it finds important in them."""

from lightning_attn.attribution.lafa.index import NeighbourIndex
from lightning_attn.attribution.lafa.kernels import KERNELS, Kernel, get_kernel
from lightning_attn.attribution.lafa.lafa import LAFA, Lexicon, NeighbourText, neighbour_texts
from lightning_attn.attribution.lafa.neighbour_shap import NeighbourShap
from lightning_attn.attribution.lafa.reading import LAYERS, Reader, fingerprint, text_digests
from lightning_attn.attribution.lafa.selection import (
    Exact,
    Faiss,
    Nearest,
    Neighbours,
    Query,
    RandomTexts,
    Search,
    Selection,
)

__all__ = [
    "KERNELS",
    "LAFA",
    "LAYERS",
    "Exact",
    "Faiss",
    "Kernel",
    "Lexicon",
    "Nearest",
    "NeighbourIndex",
    "NeighbourShap",
    "NeighbourText",
    "Neighbours",
    "Query",
    "RandomTexts",
    "Reader",
    "Search",
    "Selection",
    "fingerprint",
    "get_kernel",
    "neighbour_texts",
    "text_digests",
]
