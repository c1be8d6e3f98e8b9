from __future__ import annotations

import torch
from scipy.spatial.distance import jensenshannon

from lightning_attn.ops.divergence import jensen_shannon, total_variation


def test_divergence_equals_scipy():
    p, q = torch.rand(5, 7), torch.rand(5, 7)
    p[0, 0] = 0
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    expected = torch.tensor(jensenshannon(p.numpy(), q.numpy(), axis=-1)) ** 2
    torch.testing.assert_close(jensen_shannon(p, q), expected, atol=1e-6, rtol=0)


def test_total_variation_of_one_label_is_the_difference():
    p, q = torch.tensor([[0.7]]), torch.tensor([[0.4]])
    torch.testing.assert_close(total_variation(p, q, multi_label=True), torch.tensor([0.3]))


def test_total_variation_of_two_classes_is_that_of_one_sigmoid():
    p, q = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    torch.testing.assert_close(total_variation(p, q), torch.tensor(0.3))
