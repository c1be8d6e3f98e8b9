from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    BertForMaskedLM,
    FNetConfig,
    GPT2Config,
    NystromformerConfig,
    SqueezeBertConfig,
    T5Config,
)

from lightning_attn.attention import AdditiveAttention, DotAttention
from lightning_attn.cli.commands import main
from lightning_attn.encoders import PretrainedEncoder
from lightning_attn.errors import InputError
from lightning_attn.explain import Explainer
from lightning_attn.hub.models import complete_specification
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import PairedNetwork, PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.commands import TINY, command, run, write_config
from tests.helpers.contract import (  # noqa: F401 - collected here too, with the fixtures of this file
    test_an_example_gives_the_same_alone_and_padded,
    test_attention_is_a_distribution_over_valid,
    test_evaluation_is_deterministic,
    test_handing_back_the_attention_reproduces_the_logits,
    test_handing_back_the_embeddings_reproduces_the_logits,
    test_mixed_precision_gives_a_distribution_too,
    test_value_path_is_what_the_logits_need_when_attention_is_given,
)
from tests.helpers.runs import tiny_data, trainer
from tests.helpers.tiny_models import save_model, save_tokenizer, tiny_config
from tests.helpers.toys import toy_batch

SCHEMA = DataSchema(num_classes=3, vocabulary_size=30)
KINDS = ("bert", "roberta", "distilbert", "electra", "albert")
TEXTS = ["the plot was not dull .", "a superb cast", "the story was hollow and the music was rather tedious"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save_model(root / kind, tiny_config(kind)) for kind in KINDS}


def made(folder: Path, schema: DataSchema = SCHEMA, **arguments: Any) -> PretrainedEncoder:
    encoder = PretrainedEncoder(str(folder), **arguments)
    encoder.make_layers(schema)
    return encoder


@pytest.fixture(params=[(kind, values) for kind in KINDS for values in ("contextual", "local")], ids="-".join)
def built(request: pytest.FixtureRequest, folders: dict[str, Path]) -> PooledNetwork:
    kind, values = request.param
    torch.manual_seed(0)
    encoder = PretrainedEncoder(str(folders[kind]), values=values)
    return PooledNetwork(encoder, DotAttention() if values == "local" else AdditiveAttention()).build(SCHEMA).eval()


@pytest.fixture
def batch() -> Batch:
    return toy_batch(lengths=[9, 4, 1, 6], seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [1, 2, -1, -2])
def test_states_are_those_of_the_model_read_by_ids(
    kind: str, layer: int, folders: dict[str, Path], batch: Batch
) -> None:
    # By ids, RoBERTa counts positions from the mask itself: an independent check of the way by embeddings.
    whole = AutoModel.from_pretrained(folders[kind]).eval()
    expected = whole(batch.inputs, attention_mask=batch.valid.long(), output_hidden_states=True).hidden_states
    encoder = made(folders[kind], layer=layer).eval()
    keys, values = encoder(encoder.embed(batch), batch)
    chosen = expected[layer if layer > 0 else len(expected) + layer]
    if kind == "roberta":  # its padding id is 1, and the model takes it for padding by ids
        assert not (batch.inputs[batch.valid] == 1).any()
    torch.testing.assert_close(keys[batch.valid], chosen[batch.valid], atol=1e-5, rtol=1e-5)
    assert values is keys
    assert encoder.size == keys.shape[-1] == 16
    assert encoder.embedding_size == encoder.embed(batch).shape[-1]


def test_layers_above_and_poolers_are_left_out(folders: dict[str, Path], batch: Batch) -> None:
    encoder = made(folders["bert"], layer=1)
    encoder(encoder.embed(batch), batch)[0].sum().backward()
    assert all(parameter.grad is not None for name, parameter in encoder.named_parameters() if "word" not in name)
    assert not any("pooler" in name or "layer.1." in name for name, _ in encoder.named_parameters())


def test_a_text_of_padding_alone_has_a_finite_output(folders: dict[str, Path], batch: Batch) -> None:
    network = PooledNetwork(PretrainedEncoder(str(folders["bert"]))).build(SCHEMA).eval()
    nothing = batch.replace(valid=batch.valid & (torch.arange(4) != 1)[:, None])
    assert network(nothing).logits.isfinite().all()


def test_dropout_is_on_in_training_although_the_model_was_loaded(folders: dict[str, Path], batch: Batch) -> None:
    network = PooledNetwork(PretrainedEncoder(str(folders["bert"]))).build(SCHEMA)
    assert all(module.training for module in network.modules())
    assert not torch.equal(network(batch).logits, network(batch).logits)


def test_what_is_frozen_stays_frozen(folders: dict[str, Path]) -> None:
    data = tiny_data()
    vocabulary = data.schema.vocabulary_size
    folder = folders["bert"].parent / "frozen"
    save_model(folder, tiny_config("bert", vocabulary))
    network = PooledNetwork(PretrainedEncoder(str(folder), freeze=True, values="local"))
    module = AttentionClassifier(network, RandomPretraining(epochs=1))
    run_by = trainer(folder, max_epochs=2)
    run_by.fit(module, data)
    encoder = network.encoder
    assert isinstance(encoder, PretrainedEncoder)
    original = AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, original[name]) for name, value in encoder.backbone.state_dict().items())
    network.train()
    assert not encoder.backbone.training
    assert encoder.local is not None
    assert encoder.local.training
    assert not any(parameter.requires_grad for parameter in encoder.backbone.parameters())
    assert encoder.local.weight.requires_grad


def test_it_is_fine_tuned_otherwise(folders: dict[str, Path], tmp_path: Path) -> None:
    data = tiny_data()
    folder = save_model(tmp_path / "model", tiny_config("distilbert", data.schema.vocabulary_size))
    network = PooledNetwork(PretrainedEncoder(str(folder)))
    trainer(tmp_path).fit(AttentionClassifier(network, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3)), data)
    assert isinstance(network.encoder, PretrainedEncoder)
    original = AutoModel.from_pretrained(folder).state_dict()
    changed = [
        name
        for name, value in network.encoder.backbone.state_dict().items()
        if not torch.equal(value, original[name]) and "k_lin.bias" not in name  # softmax does not see that one
    ]
    assert len(changed) >= 30


def test_it_reads_the_text_of_a_pair(folders: dict[str, Path], batch: Batch) -> None:
    torch.manual_seed(0)
    network = PairedNetwork(PretrainedEncoder(str(folders["roberta"])), PretrainedEncoder(str(folders["bert"])))
    network.build(DataSchema(num_classes=3, vocabulary_size=30, query_vocabulary_size=30)).eval()
    asked = batch.replace(query=batch.inputs.flip(0), query_valid=batch.valid.flip(0))
    together = network(asked).logits
    for row in range(len(batch)):
        torch.testing.assert_close(network(asked.select(torch.tensor([row]))).logits[0], together[row])


@pytest.mark.parametrize("config", [GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=30), T5Config()])
def test_decoders_are_refused_by_name_before_their_weights_are_read(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"is a {config.model_type} model, which is no bidirectional encoder"):
        made(tmp_path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (FNetConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, intermediate_size=8), "takes no embeddings"),
        (
            NystromformerConfig(
                vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
            ),
            "states change when a text is padded",
        ),
        (
            SqueezeBertConfig(
                vocab_size=30,
                embedding_size=16,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=4,
                intermediate_size=16,
            ),
            "fails on a text",
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_backbones_that_cannot_be_used_are_refused_by_name(config: Any, reason: str, tmp_path: Path) -> None:
    save_model(tmp_path, config)
    with pytest.raises(InputError, match=rf"{config.model_type} model, .*{reason}"):
        made(tmp_path)


@pytest.mark.parametrize("size", [29, 200])
def test_a_vocabulary_of_another_tokenizer_is_refused(size: int, tmp_path: Path) -> None:
    save_model(tmp_path, tiny_config("bert", size))
    with pytest.raises(InputError, match=rf"have 30 token ids and .* has {size}.*HuggingFaceProcessor"):
        made(tmp_path)


@pytest.mark.parametrize("layer", [0, 3, -3])
def test_a_layer_that_is_not_there_is_refused(layer: int, folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=rf"has 2 layers: layer must be 1 to 2, or -2 to -1, not {layer}"):
        made(folders["electra"], layer=layer)


def test_missing_and_damaged_models_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no encoder to be loaded from 'nowhere'"):
        made(Path("nowhere"))
    tiny_config("bert").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no encoder to be loaded"):
        made(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match="no encoder to be loaded"):
        made(tmp_path)
    shutil.copy(folders["distilbert"] / "model.safetensors", tmp_path)
    with pytest.raises(InputError, match="lacks weights"):
        made(tmp_path)


def test_a_masked_language_model_will_do(folders: dict[str, Path], tmp_path: Path, batch: Batch) -> None:
    torch.manual_seed(3)
    model = BertForMaskedLM(tiny_config("bert"))
    model.save_pretrained(tmp_path)
    encoder = made(tmp_path).eval()
    expected = model.eval().bert(batch.inputs, attention_mask=batch.valid.long()).last_hidden_state
    found = encoder(encoder.embed(batch), batch)[0]
    torch.testing.assert_close(found[batch.valid], expected[batch.valid], atol=1e-5, rtol=1e-5)


def test_a_text_that_is_too_long_says_what_to_set(folders: dict[str, Path]) -> None:
    for kind in ("bert", "roberta"):  # RoBERTa has two positions that no token gets
        encoder = made(folders[kind]).eval()
        encoder(encoder.embed(toy_batch([64])), toy_batch([64]))
        with pytest.raises(InputError, match=r"65 tokens .* reads 64: set .*max_length to 64"):
            encoder(encoder.embed(toy_batch([65])), toy_batch([65]))


def test_word_vectors_and_features_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="has word embeddings of its own"):
        made(folders["bert"]).load_word_vectors(torch.zeros(30, 16))
    with pytest.raises(InputError, match="features of instances"):
        made(folders["bert"], DataSchema(num_classes=2, feature_shape=(4,)))


def test_a_configuration_is_enough_to_make_it_again(folders: dict[str, Path], batch: Batch) -> None:
    original = made(folders["roberta"], layer=1).eval()
    again = PretrainedEncoder("gone", layer=1, config=original.config)
    again.make_layers(SCHEMA)
    again.load_state_dict(original.state_dict())
    again.eval()
    assert torch.equal(again(again.embed(batch), batch)[0], original(original.embed(batch), batch)[0])


def test_specifications_are_completed_wherever_the_encoder_stands(folders: dict[str, Path]) -> None:
    network = PooledNetwork(PretrainedEncoder(str(folders["bert"]))).build(SCHEMA)
    encoder = {"class_path": "x.PretrainedEncoder", "init_args": {"name_or_path": str(folders["bert"]), "config": None}}
    spec = {"class_path": "x.Ensemble", "init_args": {"members": [{"class_path": "y", "init_args": {"e": encoder}}]}}
    completed = complete_specification(spec, network)
    found = completed["init_args"]["members"][0]["init_args"]["e"]["init_args"]["config"]
    assert found["model_type"] == "bert"
    assert encoder["init_args"]["config"] is None


def test_from_the_command_line_a_checkpoint_needs_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_ATTN_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    size = save_tokenizer(model, TEXTS)
    save_model(model, tiny_config("bert", size))
    processor = {"class_path": "HuggingFaceProcessor", "init_args": {"name_or_path": str(model), "max_length": 64}}
    data = {**TINY["data"], "init_args": {**TINY["data"]["init_args"], "processor": processor}}
    encoder = {"class_path": "PretrainedEncoder", "init_args": {"name_or_path": str(model)}}
    network = {"class_path": "PooledNetwork", "init_args": {"encoder": encoder}}
    classifier = {**TINY["model"], "init_args": {**TINY["model"]["init_args"], "network": network}}
    config = write_config(tmp_path, model=classifier, data=data)
    folder = run("fit", config, tmp_path / "runs", "--trainer.max_epochs=2")
    best = folder / "checkpoints" / "best.ckpt"
    before = Explainer(best).explain(TEXTS, methods=["gradient"])
    tested = run("test", config, tmp_path / "with", f"--ckpt_path={best}")
    assert "The checkpoint decides" not in capsys.readouterr().out
    shutil.move(model, tmp_path / "moved")
    assert Explainer(best).explain(TEXTS, methods=["gradient"]) == before
    again = tmp_path / "again"
    last = folder / "checkpoints" / "last.ckpt"
    moved = [f"--data.init_args.processor.init_args.name_or_path={tmp_path / 'moved'}"]
    folder = run("test", config, tmp_path / "without", f"--ckpt_path={best}", *moved)
    assert (folder / "metrics.csv").read_text() == (tested / "metrics.csv").read_text()
    assert main(command("fit", config, again, f"--ckpt_path={last}", "--trainer.max_epochs=3", *moved)) == 0
