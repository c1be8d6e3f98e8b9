from __future__ import annotations

import torch
from scipy.stats import entropy as scipy_entropy

from lightning_attn.metrics.functional.concentration import effective_tokens, entropy, max_attention, special_mass

ATTENTION = torch.tensor([[0.25, 0.25, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0], [0.7, 0.2, 0.1, 0.0, 0.0]])


def test_entropy_and_effective_tokens():
    torch.testing.assert_close(entropy(ATTENTION), torch.tensor(scipy_entropy(ATTENTION, axis=-1)))
    torch.testing.assert_close(effective_tokens(ATTENTION)[:2], torch.tensor([4.0, 1.0]))


def test_max_and_special_mass():
    assert max_attention(ATTENTION).tolist() == [0.25, 1.0, ATTENTION[2, 0]]
    special = torch.tensor([[True, False, False, True, False]]).expand(3, -1)
    torch.testing.assert_close(special_mass(ATTENTION, special), torch.tensor([0.5, 1.0, 0.7]))
