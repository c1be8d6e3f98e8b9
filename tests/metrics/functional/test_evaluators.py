from __future__ import annotations

import torch

from lightning_attn.metrics.functional.evaluators import MaskJudge, Training
from lightning_attn.mitigations.random_attention import SoftmaxNormal
from lightning_attn.types import Batch, DataSchema

SCHEMA = DataSchema(num_classes=2, vocabulary_size=2000)


def noise(count: int, first: int) -> list[Batch]:
    """Texts of rare words whose labels are coins."""
    generator = torch.Generator().manual_seed(first)
    batches = []
    for number in range(first, first + count, 50):
        inputs = torch.randint(2, 2000, (50, 12), generator=generator)
        valid = torch.ones_like(inputs, dtype=torch.bool)
        target = torch.randint(0, 2, (50,), generator=generator)
        batches.append(Batch(inputs, valid, ~valid, target, torch.arange(number, number + 50)))
    return batches


def masks(batches: list[Batch], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch.valid.shape, generator=generator).softmax(dim=-1) for batch in batches]


def test_evaluators_learn_no_texts_by_heart() -> None:
    train, fresh = noise(400, 0), noise(400, 1000)
    judge = MaskJudge(SCHEMA, train, SoftmaxNormal(), Training(epochs=2, more_epochs=25))

    def losses() -> dict[str, float]:
        learnt, found = judge.learn(masks(train, 0)), {}
        for batch, mask in zip(fresh, masks(fresh, 1), strict=True):
            for name, said in judge.judge(learnt, batch, mask).items():
                loss = -said.gather(1, batch.target[:, None]).mean() / len(fresh)
                found[name] = found.get(name, 0.0) + float(loss)
        return found

    careful = losses()
    assert max(careful.values()) < 0.72, "nothing can be learned, so a coin is what there is to say"
    judge._held = [torch.zeros_like(held) for held in judge._held]
    assert losses()["judged"] > careful["judged"] + 0.02, "without examples that are held out, they do"


def test_a_fifth_is_held_out() -> None:
    judge = MaskJudge(SCHEMA, noise(400, 0), SoftmaxNormal(), Training(epochs=1, more_epochs=1))
    assert 0.12 < torch.cat(judge._held).float().mean() < 0.28
