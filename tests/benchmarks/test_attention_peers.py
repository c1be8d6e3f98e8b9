import torch

from benchmarks import attention_peers as peers
from lightning_attn.experiments import PublishedSolver, adversarial, permutation
from lightning_attn.ops.divergence import jensen_shannon
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out
from lightning_attn.types import Batch
from tests.helpers.toys import toy_batch, toy_network

LENGTHS = (7, 1, 12, 4)


def examples(lengths: tuple[int, ...] = LENGTHS) -> tuple[Batch, list[Batch]]:
    batch = toy_batch(lengths)
    return batch, [peers.cut(batch.select(torch.tensor([row]))) for row in range(len(batch))]


def test_cutting_and_putting_together_are_inverse() -> None:
    batch, single = examples()
    assert [one.valid.shape[1] for one in single] == list(LENGTHS)
    again = peers.together(single)
    for name in ("inputs", "valid", "special", "target", "index"):
        torch.testing.assert_close(getattr(again, name), getattr(batch, name))


def test_the_loop_over_positions_is_leave_one_out() -> None:
    batch, single = examples()
    network = toy_network()
    full = probabilities(network, batch, torch.ones_like(batch.valid)[:, None])[:, 0]
    without = probabilities(network, batch, leave_one_out(batch))
    target = full.argmax(dim=-1)
    for row, scores in enumerate(peers.by_position(network, single)):
        drop = full[row, target[row]] - without[row, : LENGTHS[row], target[row]]
        torch.testing.assert_close(scores, drop, atol=1e-6, rtol=0)


def test_the_loop_over_permutations_agrees_up_to_the_draw() -> None:
    batch, single = examples((9, 6, 12, 8, 1))
    network = toy_network(sharpness=8.0)
    theirs = peers.permutation_loop(network, single, 400)
    ours = permutation(network, batch, permutations=400).change.float()
    assert ours[:4].max() > 0.2
    torch.testing.assert_close(theirs, ours, rtol=0.0, atol=0.08, equal_nan=True)


def test_the_loop_over_examples_searches_as_the_published_solver_does() -> None:
    batch, single = examples((9, 6, 12, 8, 1))
    network = toy_network(sharpness=8.0)
    theirs = peers.adversarial_loop(network, single, 5, 500)
    published, best = (adversarial(network, batch, solver=solver).jsd for solver in (PublishedSolver(), None))
    assert theirs[4].isnan()
    # what is found depends on the random starts, which are others
    assert abs(theirs.nanmean() - published.nanmean()) < 0.05
    assert (theirs <= best + 1e-3)[:4].all()
    assert theirs[:4].min() > 0.3


def test_the_divergence_is_that_of_the_package() -> None:
    torch.manual_seed(0)
    p, q = torch.rand(2, 3, 6).softmax(dim=-1)
    torch.testing.assert_close(peers.divergence(p, q), jensen_shannon(p, q))


def test_texts_spell_padding_and_the_unknown_word() -> None:
    _, single = examples((3,))
    one = single[0].replace(inputs=torch.tensor([[1, 17, 0]]))
    assert peers.as_texts([one]) == ["[UNK] w17 [PAD]"]


def test_the_wrapped_model_gives_the_same_logits() -> None:
    _, single = examples()
    network = toy_network()
    model, tokenizer = peers.hugging_face(network)
    for one, text in zip(single, peers.as_texts(single), strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        torch.testing.assert_close(encoded["input_ids"], one.inputs)
        torch.testing.assert_close(model(**encoded).logits, network(one).logits)
