"""Attention that selects what explains a black box: who selects what decides, and what goes wrong in silence."""
