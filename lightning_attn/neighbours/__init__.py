"""Training texts near a text, as the network itself sees them, and what it finds important in them."""

from lightning_attn.neighbours.fingerprint import fingerprint, text_digests
from lightning_attn.neighbours.index import NeighbourIndex
from lightning_attn.neighbours.layers import LAYERS, Reader
from lightning_attn.neighbours.search import Exact, Faiss, Neighbours, Query, Search
from lightning_attn.neighbours.selection import Nearest, RandomTexts, Selection
from lightning_attn.neighbours.texts import NeighbourText, neighbour_texts

__all__ = [
    "LAYERS",
    "Exact",
    "Faiss",
    "Nearest",
    "NeighbourIndex",
    "NeighbourText",
    "Neighbours",
    "Query",
    "RandomTexts",
    "Reader",
    "Search",
    "Selection",
    "fingerprint",
    "neighbour_texts",
    "text_digests",
]
