"""Mitigations: ways to keep label information out of the attention weights."""

from lightning_attn.mitigations.base import Mitigation, NoMitigation

__all__ = ["Mitigation", "NoMitigation"]
