from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DebertaV2Config,
    GPT2Config,
    ModernBertConfig,
    PretrainedConfig,
)

from lightning_attn.attribution import METHODS, get
from lightning_attn.callbacks import AttentionTableCallback, FaithfulnessCallback
from lightning_attn.callbacks.faithfulness import KNOWN
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer
from lightning_attn.mitigations import (
    AttentionDropout,
    Compose,
    InstanceWeighting,
    Mitigation,
    NoMitigation,
    RandomMixing,
    RandomPretraining,
)
from lightning_attn.mitigations.random_attention import Uniform
from lightning_attn.networks import TransformerNetwork
from lightning_attn.networks.transformer.self_attention import NAME, attention_function, own_attention, register
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.commands import TINY, run, write_config
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
    test_mixed_precision_gives_a_distribution_too,
)
from tests.helpers.runs import tiny_data, trainer
from tests.helpers.tiny_models import KINDS, SMALL, save_classifier, save_model, save_tokenizer, tiny_config
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=3, vocabulary_size=30)
CHOICES: dict[str, dict[str, Any]] = {
    "last": {},
    "lowest": {"layers": [1]},
    "all": {"layers": [1, -1]},
    "one-head": {"heads": [1]},
    "all-one-head": {"layers": [1, 2], "heads": [0]},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("classifiers")
    return {kind: save_classifier(root / kind, tiny_config(kind)) for kind in KINDS}


def made(folder: Path, schema: DataSchema = SCHEMA, **arguments: Any) -> TransformerNetwork:
    torch.manual_seed(0)
    return TransformerNetwork(str(folder), **arguments).build(schema).eval()


COMBINATIONS = [(kind, choice) for kind in KINDS for choice in CHOICES if kind in ("bert", "albert") or choice == "all"]


@pytest.fixture(
    params=[*COMBINATIONS, *((kind, "last") for kind in ("roberta", "distilbert", "electra"))], ids="-".join
)
def built(request: pytest.FixtureRequest, folders: dict[str, Path]) -> TransformerNetwork:
    kind, choice = request.param
    return made(folders[kind], **CHOICES[choice])


@pytest.fixture
def batch() -> Batch:
    return toy_batch([9, 4, 1, 6], seed=1)


def test_logits_are_those_of_the_model_read_by_ids(built: TransformerNetwork, batch: Batch) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(built.name_or_path, attn_implementation="eager").eval()
    expected = model(batch.inputs, attention_mask=batch.valid.long()).logits
    torch.testing.assert_close(built(batch).logits, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.01


def test_attention_is_the_row_of_the_first_position_of_eager_attention(built: TransformerNetwork, batch: Batch) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(built.name_or_path, attn_implementation="eager").eval()
    maps = model(batch.inputs, attention_mask=batch.valid.long(), output_attentions=True).attentions
    chosen = sorted({layer if layer > 0 else 3 + layer for layer in built.layers})
    rows = torch.cat([maps[layer - 1][:, list(built.heads or (0, 1)), 0] for layer in chosen], dim=1)
    output = built(batch)
    torch.testing.assert_close(output.heads, rows, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.attention, rows.mean(dim=1), atol=1e-5, rtol=1e-5)
    scores = output.scores.softmax(dim=-1)
    torch.testing.assert_close(scores, output.attention, atol=1e-5, rtol=1e-5)


def test_many_attentions_are_one_after_the_other(built: TransformerNetwork, batch: Batch) -> None:
    many = (torch.rand(4, 3, 9) * batch.valid[:, None]) + 1e-3 * batch.valid[:, None]
    many = many / many.sum(dim=-1, keepdim=True)
    values = built(batch).values
    expected = torch.stack([built.classify(values, many[:, number], batch) for number in range(3)], dim=1)
    torch.testing.assert_close(built.classify_many(values, many, batch), expected)
    assert not torch.allclose(expected[0, 0], expected[0, 1], atol=1e-5)


def test_other_weights_act_as_if_every_chosen_head_had_them(folders: dict[str, Path], batch: Batch) -> None:
    """With one attention head the weights given are its own: changed in the eager model itself, an independent way."""
    network = made(folders["bert"], heads=[1])
    even = Uniform().sample(network(batch).attention, batch)
    model = AutoModelForSequenceClassification.from_pretrained(folders["bert"], attn_implementation="eager").eval()
    last = model.bert.encoder.layer[-1].attention.self
    value: list[torch.Tensor] = []
    last.value.register_forward_hook(lambda module, inputs, output: value.append(output))

    def changed(module: Any, inputs: Any, output: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
        context = output[0].clone()
        context[:, 0, 8:] = torch.einsum("bl,bld->bd", even, value[0][..., 8:])
        return context, output[1]

    last.register_forward_hook(changed)
    expected = model(batch.inputs, attention_mask=batch.valid.long()).logits
    torch.testing.assert_close(network(batch, attention=even).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "albert"])
def test_the_scorer_is_queries_and_keys_of_the_last_layer(kind: str, folders: dict[str, Path], batch: Batch) -> None:
    network = made(folders[kind])
    network(batch, attention=Uniform().sample(network(batch).attention, batch)).logits.sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    path = {id(parameter) for module in network.value_path() for parameter in module.parameters()}
    assert reached == {name for name, parameter in network.named_parameters() if id(parameter) in path}
    left = {name for name, _ in network.named_parameters()} - reached
    assert len(left) == 4
    assert all(".1." in name and any(part in name for part in ("query", "key", "q_lin", "k_lin")) for name in left)


def test_shared_layers_have_no_scorer_of_their_own(folders: dict[str, Path]) -> None:
    network = made(folders["albert"])
    covered = {id(parameter) for module in network.value_path() for parameter in module.parameters()}
    assert covered == {id(parameter) for parameter in network.parameters()}
    with pytest.raises(InputError, match="leaves nothing to learn"):
        RandomPretraining().lr_scales(network, 0)


def test_the_scorer_gets_no_gradient_under_random_attention(folders: dict[str, Path], batch: Batch) -> None:
    network = made(folders["bert"]).train()
    network.set_mitigation(RandomPretraining(epochs=1))
    output = network(batch)
    assert not torch.allclose(output.attention, output.learned, atol=1e-3)
    output.logits.sum().backward()
    scorer = network.model.bert.encoder.layer[-1].attention.self
    assert scorer.query.weight.grad is None or not scorer.query.weight.grad.any()
    assert scorer.value.weight.grad.any()
    network.mitigation.epoch = 1
    network(batch).logits.sum().backward()
    assert scorer.query.weight.grad.any()


def test_random_weights_replace_every_chosen_head_by_itself(folders: dict[str, Path], batch: Batch) -> None:
    network = made(folders["bert"], layers=[1, 2]).train()
    network.set_mitigation(RandomPretraining(epochs=1))
    heads = network(batch).heads
    assert heads.shape == (4, 4, 9)
    torch.testing.assert_close(heads.sum(dim=-1), torch.ones(4, 4))
    assert all(not torch.allclose(heads[0, one], heads[0, other]) for one in range(4) for other in range(one))


MITIGATIONS: dict[str, Any] = {
    "none": NoMitigation,
    "random": lambda: RandomPretraining(epochs=1),
    "weighting": lambda: InstanceWeighting(warmup_steps=2),
    "both": lambda: Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=2)]),
    "mixing": RandomMixing,
    "dropout": AttentionDropout,
}


@pytest.mark.parametrize("name", MITIGATIONS)
def test_it_trains_under_every_mitigation(name: str, tmp_path: Path) -> None:
    data = tiny_data()
    folder = save_model(tmp_path / "model", tiny_config("bert", data.schema.vocabulary_size))
    mitigation: Mitigation = MITIGATIONS[name]()
    network = TransformerNetwork(str(folder))
    module = AttentionClassifier(network, mitigation, lambda p: torch.optim.AdamW(p, lr=1e-3))
    states: list[dict[str, torch.Tensor]] = []

    class Keep(FaithfulnessCallback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            states.append({key: value.clone() for key, value in network.model.state_dict().items()})

    run_by = trainer(tmp_path, max_epochs=2, callbacks=[Keep(max_examples=4), AttentionTableCallback()])
    run_by.fit(module, data)
    changed = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    scorer = {key for key in changed if "layer.1.attention.self" in key and ("query" in key or "key" in key)}
    assert scorer
    assert (changed == scorer) is (name in ("random", "both"))


def test_every_measure_and_method_works(folders: dict[str, Path], tmp_path: Path) -> None:
    data = tiny_data()
    folder = save_model(tmp_path / "model", tiny_config("distilbert", data.schema.vocabulary_size))
    module = AttentionClassifier(TransformerNetwork(str(folder)).build(data.schema))
    run_by = trainer(tmp_path, callbacks=[FaithfulnessCallback(metrics=list(KNOWN))])
    (found,) = run_by.validate(module, data, verbose=False)
    assert {name.removeprefix("val/") for name in found} >= set(KNOWN)
    batch = data.dataset("val")[range(4)]
    for name in METHODS:
        scores = get(name).attribute(module.network, batch)
        assert scores.isfinite().all(), name
        assert not scores[~batch.inner].any(), name


def test_a_checkpoint_brings_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", str(tmp_path / "cache"))
    texts = ["the plot was not dull .", "a superb cast"]
    model = tmp_path / "model"
    save_model(model, tiny_config("electra", save_tokenizer(model, texts)))
    processor = {"class_path": "HuggingFaceProcessor", "init_args": {"name_or_path": str(model), "max_length": 64}}
    data = {**TINY["data"], "init_args": {**TINY["data"]["init_args"], "processor": processor}}
    network = {"class_path": "TransformerNetwork", "init_args": {"name_or_path": str(model), "layers": [1, 2]}}
    classifier = {**TINY["model"], "init_args": {**TINY["model"]["init_args"], "network": network}}
    config = write_config(tmp_path, model=classifier, data=data)
    folder = run("fit", config, tmp_path / "runs", "--trainer.max_epochs=2")
    best = folder / "checkpoints" / "best.ckpt"
    before = Explainer(best).explain(texts, methods=["attention", "gradient"])
    shutil.rmtree(model)
    assert Explainer(best).explain(texts, methods=["attention", "gradient"]) == before
    assert set(before[0].probabilities) == {"negative", "positive"}


def test_dropout_is_on_in_training_although_the_model_was_loaded(tmp_path: Path, batch: Batch) -> None:
    network = TransformerNetwork(str(save_classifier(tmp_path, tiny_config("bert")))).build(SCHEMA)
    assert all(module.training for module in network.modules())
    output = network(batch)
    assert not torch.equal(output.logits, network(batch).logits)
    torch.testing.assert_close(output.heads.sum(dim=-1), torch.ones(4, 2))


def test_a_model_at_hand_stays_as_it_is(folders: dict[str, Path], batch: Batch) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders["bert"]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = TransformerNetwork.from_model(model)
    with pytest.warns(DeprecationWarning, match="is called from_model now"):
        assert type(TransformerNetwork.of(model)) is TransformerNetwork
    assert network.training
    assert network.schema.class_names == ("LABEL_0", "LABEL_1", "LABEL_2")
    expected = model.eval()(batch.inputs, attention_mask=batch.valid.long()).logits
    torch.testing.assert_close(network.eval()(batch).logits, expected, atol=1e-5, rtol=1e-5)
    assert model.config._attn_implementation == "sdpa"
    assert [f"model.{name}" for name in before] == list(network.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.warns(DeprecationWarning, match="is called from_model now"):
        assert TransformerNetwork.of(model).choice == network.choice


def test_the_models_own_attention_is_back_after_an_error(folders: dict[str, Path]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders["bert"], attn_implementation="eager")
    seen = []

    def fail() -> None:
        with own_attention(model):
            seen.append(model.config._attn_implementation)
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert seen == [NAME]
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("kind", KINDS)
def test_our_function_is_eager_attention_and_leaves_padding_unread(
    kind: str, folders: dict[str, Path], batch: Batch
) -> None:
    register()
    folder = folders[kind]
    eager = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    ours = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation=NAME).eval()
    inputs = {"input_ids": batch.inputs, "attention_mask": batch.valid.long(), "output_attentions": True}
    expected, found = eager(**inputs), ours(**inputs)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    assert len(found.attentions) == 2
    for one, other in zip(found.attentions, expected.attentions, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert not one.transpose(1, 3)[~batch.valid].any()


def test_weights_sum_to_one_in_training_too() -> None:
    query = torch.randn(2, 2, 5, 4)
    module = torch.nn.Module().train()
    _, weights = attention_function(module, query, query, query, None, dropout=0.5, output_attentions=True)
    assert weights is not None
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 5), atol=1e-6, rtol=0)


def test_without_weights_the_fused_kernel_runs(
    folders: dict[str, Path], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = made(folders["bert"])
    kernel, calls = torch.nn.functional.scaled_dot_product_attention, []

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(arguments[0].shape[2])
        return kernel(*arguments, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    network.run(network.embed(batch), batch)
    assert calls == [9, 9]
    network(batch)
    assert calls == [9, 9, 9]


def test_classes_are_found_by_their_names(tmp_path: Path, batch: Batch) -> None:
    config = tiny_config("bert")
    config.id2label = {0: "Entailment", 1: "neutral", 2: "contradiction"}
    folder = save_classifier(tmp_path, config)
    straight = made(folder, DataSchema(3, ("entailment", "neutral", "contradiction"), vocabulary_size=30))
    turned = made(folder, DataSchema(3, ("contradiction", "entailment", "neutral"), vocabulary_size=30))
    torch.testing.assert_close(turned(batch).logits, straight(batch).logits[:, [2, 0, 1]])
    assert not torch.allclose(turned(batch).logits, straight(batch).logits, atol=1e-3)
    with pytest.warns(UserWarning, match="look at the accuracy"):
        made(folder, DataSchema(3, ("a", "b", "c"), vocabulary_size=30))


def test_a_model_without_a_classifier_gets_one(tmp_path: Path) -> None:
    folder = save_model(tmp_path, tiny_config("roberta"))
    network = made(folder, DataSchema(4, ("a", "b", "c", "d"), vocabulary_size=30))
    assert network(toy_batch()).logits.shape == (4, 4)
    assert network.config is not None
    assert network.config["id2label"] == {"0": "a", "1": "b", "2": "c", "3": "d"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=30), "no bidirectional encoder"),
        (DebertaV2Config(vocab_size=30, **SMALL), "does not call registered attention functions"),
        (ModernBertConfig(vocab_size=30, **SMALL, pad_token_id=0), "does not call registered attention functions"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_models_that_cannot_be_used_are_refused_by_name(config: PretrainedConfig, reason: str, tmp_path: Path) -> None:
    save_classifier(tmp_path, config)
    with pytest.raises(InputError, match=rf"is a {config.model_type} model, .*{reason}"):
        made(tmp_path)


def test_a_wrong_choice_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"has 2 layers: layers must be of 1 to 2, or -2 to -1, not 3"):
        made(folders["bert"], layers=[3])
    with pytest.raises(InputError, match=r"has 2 attention heads per layer: heads must be of 0 to 1, not 2"):
        made(folders["bert"], heads=[2])
    with pytest.raises(InputError, match="at least one layer"):
        made(folders["bert"], layers=[])


def test_what_does_not_fit_the_data_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the data have 2 classes, and the sizes of classifier"):
        made(folders["bert"], DataSchema(num_classes=2, vocabulary_size=30))
    with pytest.raises(InputError, match=r"have 300 token ids and .* has 30"):
        made(folders["bert"], DataSchema(num_classes=3, vocabulary_size=300))
    with pytest.raises(InputError, match="features of instances"):
        made(folders["bert"], DataSchema(num_classes=3, feature_shape=(4,)))
    with pytest.raises(InputError, match="no encoder to be loaded from"):
        made(tmp_path)
    network = made(folders["roberta"])
    with pytest.raises(InputError, match=r"65 tokens .* reads 64: set .*max_length to 64"):
        network(toy_batch([65]))
    with pytest.raises(InputError, match="has word embeddings of its own"):
        network.load_word_vectors(torch.zeros(30, 16))
    damaged = shutil.copytree(folders["bert"], tmp_path / "damaged")
    shutil.copy(folders["distilbert"] / "model.safetensors", damaged)
    with pytest.raises(InputError, match="lacks weights"):
        made(damaged)
