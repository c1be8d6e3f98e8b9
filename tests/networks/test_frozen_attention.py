"""`FrozenAttention`: another network's weights, in training, in checkpoints, and for every network."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from lightning_attn.attention import DotAttention, UniformAttention
from lightning_attn.cli.commands import main
from lightning_attn.encoders import CNN, MLP, BiLSTM, TokenMLP
from lightning_attn.errors import InputError
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import AttentionNetwork, BagNetwork, FrozenAttention, PairedNetwork, PooledNetwork
from lightning_attn.networks.trained import TrainedNetwork
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.perturbation.variants import leave_one_out
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.commands import TINY, command, last, run, write_config
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
)
from tests.helpers.runs import tiny_data, tiny_module, trainer
from tests.helpers.toy_bags import toy_bag_network, toy_bags
from tests.helpers.toy_pairs import paired, pairs
from tests.helpers.toys import toy_batch, toy_network

SCHEMA = DataSchema(num_classes=3, vocabulary_size=30, query_vocabulary_size=30)
NETWORK = "--model.init_args.network.init_args"
ENCODERS = {"bilstm": lambda: BiLSTM(8, 5), "cnn": lambda: CNN(8, 3), "average": lambda: TokenMLP(8, 7, values="local")}


def under(other: AttentionNetwork, encoder: str = "average") -> PooledNetwork:
    torch.manual_seed(1)
    return PooledNetwork(ENCODERS[encoder](), FrozenAttention.from_network(other)).build(SCHEMA).eval()


def pairs_under(other: AttentionNetwork, encoder: str = "average") -> PairedNetwork:
    torch.manual_seed(1)
    return PairedNetwork(ENCODERS[encoder](), TokenMLP(8, 4), FrozenAttention.from_network(other)).build(SCHEMA).eval()


@pytest.fixture(params=ENCODERS)
def built(request: pytest.FixtureRequest) -> PooledNetwork:
    return under(toy_network(classes=3), request.param)


@pytest.fixture
def batch() -> Batch:
    return toy_batch(lengths=[9, 4, 1, 6], seed=1)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_weights_are_those_of_the_other_network(encoder: str) -> None:
    batch, other = pairs(), paired("bilstm")
    expected = other(batch).attention
    assert expected[0].max() - expected[0].min() > 0.01
    for network in (under(other, encoder), pairs_under(other, encoder)):
        torch.testing.assert_close(network(batch).attention, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("attend_special", [True, False])
def test_special_tokens_get_what_the_other_network_gives_them(attend_special: bool) -> None:
    batch, other = toy_batch([6, 9], special=True), toy_network(classes=3, attend_special=attend_special)
    found = under(other)(batch).attention
    torch.testing.assert_close(found, other(batch).attention, atol=1e-6, rtol=1e-6)
    assert (found[batch.special] > 0).all() == attend_special


def test_the_other_network_is_no_part_of_this_one(batch: Batch) -> None:
    other = toy_network(classes=3)
    network = under(other)
    assert not list(network.attention.parameters())
    before = network(batch).attention
    network.train()
    network(batch).logits.sum().backward()
    assert all(parameter.grad is None for parameter in other.parameters())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(network.eval()(batch).attention, before), "it is a copy"


@pytest.mark.parametrize("make", [under, pairs_under])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_perturbed_texts_are_read_by_the_other_network_too(make, encoder: str) -> None:
    batch, other = pairs((5, 3), (2, 4)), paired("bilstm")
    network = make(other, encoder)
    found = probabilities(network, batch, leave_one_out(batch))
    without = batch.select(torch.tensor([0]))
    keep = torch.arange(5) != 2
    without = without.replace(
        inputs=without.inputs[:, keep], valid=without.valid[:, keep], special=without.special[:, keep], evidence=None
    )
    expected = SCHEMA.probabilities(network(without).logits)
    torch.testing.assert_close(found[0, 2], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(network(without).attention, other(without).attention, atol=1e-6, rtol=1e-6)


def test_bags_too_packed_or_padded() -> None:
    bags, other = toy_bags(), toy_bag_network("gated")
    network = BagNetwork(MLP((5,)), FrozenAttention.from_network(other)).build(other.schema).eval()
    expected = other(bags).attention
    for batch in (bags, bags.pack()):
        torch.testing.assert_close(network(batch).attention, expected, atol=1e-6, rtol=1e-6)
    with pytest.raises(InputError, match="features of instances"):
        network.attention(torch.zeros(4, 9, 7), toy_batch(lengths=[9, 4, 1, 6]))


def test_frozen_attention_of_frozen_attention(batch: Batch) -> None:
    other = toy_network(classes=3)
    torch.testing.assert_close(under(under(other))(batch).attention, other(batch).attention, atol=1e-6, rtol=1e-6)


def test_a_copy_and_a_move_take_the_other_network_along(batch: Batch) -> None:
    network = under(toy_network(classes=3))
    again = copy.deepcopy(network).double().float()
    torch.testing.assert_close(again(batch).logits, network(batch).logits)


def test_weights_made_in_python_go_into_the_same_network_again(batch: Batch) -> None:
    network, other = under(toy_network(classes=3)), under(toy_network(seed=5, classes=3))
    assert not torch.allclose(network(batch).attention, other(batch).attention)
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(batch).logits, other(batch).logits)
    bare = PooledNetwork(TokenMLP(8, 7, values="local"), FrozenAttention("nowhere.ckpt")).build(SCHEMA)
    with pytest.raises(InputError, match=r"FrozenAttention\.from_network"):
        bare.load_state_dict(network.state_dict())


def test_random_pretraining_says_that_nothing_would_be_learned(tmp_path: Path) -> None:
    data = tiny_data()
    network = PooledNetwork(TokenMLP(8, 6), FrozenAttention.from_network(tiny_module(data).network))
    with pytest.raises(InputError, match="FrozenAttention has no parameters"):
        trainer(tmp_path, max_epochs=2).fit(AttentionClassifier(network, RandomPretraining(epochs=1)), data)


def test_other_data_are_refused(batch: Batch) -> None:
    network = under(toy_network(classes=3))
    with pytest.raises(InputError, match="a vocabulary of 30 tokens"):
        network.attention(torch.zeros(4, 9, 7), batch.replace(inputs=batch.inputs + 30))
    features = batch.replace(inputs=torch.zeros(4, 9, 3))
    with pytest.raises(InputError, match="train both networks on the same data"):
        network.attention(torch.zeros(4, 9, 7), features)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = copy.deepcopy(TINY["model"])
    model["init_args"]["mitigation"] = None
    return write_config(tmp_path_factory.mktemp("config"), model=model)


@pytest.fixture(scope="module")
def teacher(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("fit", config, tmp_path_factory.mktemp("teacher"), "--trainer.max_epochs=2") / "checkpoints"


def frozen(checkpoint: Path) -> list[str]:
    return [
        f"{NETWORK}.attention=FrozenAttention",
        f"{NETWORK}.attention.init_args.checkpoint={checkpoint}",
        f"{NETWORK}.encoder=TokenMLP",
    ]


def test_a_model_is_trained_under_it_and_needs_no_second_file(config: Path, teacher: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes((teacher / "best.ckpt").read_bytes())
    folder = run("fit", config, tmp_path / "fit", "--trainer.max_epochs=2", *frozen(moved))
    expected = TrainedNetwork.read(moved).network
    moved.unlink()
    checkpoint = folder / "checkpoints" / "last.ckpt"
    network = TrainedNetwork.read(checkpoint).network
    batch = tiny_data().dataset("val")[range(8)]
    torch.testing.assert_close(network(batch).attention, expected(batch).attention, atol=1e-6, rtol=1e-6)
    # Everything that takes a checkpoint takes this one.
    run("test", config, tmp_path / "test", f"--ckpt_path={checkpoint}")
    resumed = run(
        "fit", folder / "config.yaml", tmp_path / "go on", f"--ckpt_path={checkpoint}", "--trainer.max_epochs=3"
    )
    state, teaching = last(resumed)["state_dict"]["network.attention._extra_state"]["weights"], expected.state_dict()
    assert state.keys() == teaching.keys()
    assert all(torch.equal(state[name], teaching[name]) for name in state)
    assert main(["explain", f"--ckpt_path={checkpoint}", "--text", "a superb cast", "--json", str(tmp_path / "x")]) == 0


def test_the_optimiser_leaves_the_other_network_alone(config: Path, teacher: Path, tmp_path: Path) -> None:
    folder = run("fit", config, tmp_path, "--trainer.max_epochs=1", *frozen(teacher / "best.ckpt"))
    taught = last(folder)
    learning = {name for name in taught["state_dict"] if not name.endswith("_extra_state")}
    assert not any(name.startswith("network.attention.") for name in learning)
    assert len(taught["optimizer_states"][0]["param_groups"][0]["params"]) == len(learning)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ([f"{NETWORK}.attention=FrozenAttention"], "FrozenAttention needs checkpoint"),
        (frozen(Path("nowhere.ckpt")), "There is no checkpoint nowhere.ckpt"),
    ],
)
def test_a_checkpoint_that_is_missing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], attention: list[str], message: str
) -> None:
    assert main(command("fit", config, tmp_path / "runs", "--wandb=disabled", *attention)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert message in line
    assert not list(tmp_path.glob("runs/*"))


def test_a_checkpoint_written_from_python_says_what_to_do(tmp_path: Path) -> None:
    data = tiny_data()
    run = trainer(tmp_path)
    run.fit(tiny_module(data), data)
    run.save_checkpoint(tmp_path / "python.ckpt")
    layer = FrozenAttention(str(tmp_path / "python.ckpt"))
    with pytest.raises(InputError, match="load_from_checkpoint"):
        _ = layer.trained


def test_wiegreffe_and_pinters_arms_differ(batch: Batch) -> None:
    """The same encoder under uniform, learned and another network's weights pools differently."""
    outputs = []
    for attention in (UniformAttention(), DotAttention(), FrozenAttention.from_network(toy_network(classes=3))):
        torch.manual_seed(1)
        network = PooledNetwork(TokenMLP(8, 7, values="local"), attention).build(SCHEMA).eval()
        outputs.append(network(batch).attention[0])
    assert len({tuple(output.tolist()) for output in outputs}) == 3
