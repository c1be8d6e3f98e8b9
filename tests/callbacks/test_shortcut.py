from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_attn.attention import AdditiveAttention
from lightning_attn.callbacks import FaithfulnessCallback, ShortcutProbe
from lightning_attn.data import DefaultTokens, SyntheticReviewsDataModule
from lightning_attn.encoders import BiLSTM
from lightning_attn.errors import InputError
from lightning_attn.metrics.functional.leakage import bits_gained
from lightning_attn.networks import AttentionNetwork, ContentFreeNetwork, PooledNetwork
from lightning_attn.tasks import AttentionClassifier
from tests.helpers.runs import RecordingLogger, bag_module, tiny_bags, tiny_checkpoint, tiny_data, tiny_module, trainer

LEAKED = ("leaked_bits", "leaked_bits_low", "leaked_bits_high", "order_free_bits", "length_bits")
JUDGED = ("evalx_accuracy", "evalx_random_accuracy", "encoding_bits", "encoding_bits_low", "encoding_bits_high")
ALL = {*LEAKED, *JUDGED, "mask_only_accuracy", "fano_bits", "encoding_bits_control", "encoding_bits_content"}


def texts(k: int = 3) -> SyntheticReviewsDataModule:
    return tiny_data(train=40, val=40, test=30, processor=DefaultTokens(k))


def ours(metrics, split: str = "val") -> dict[str, float]:
    start = f"{split}/shortcut/"
    return {name.removeprefix(start): float(value) for name, value in metrics.items() if name.startswith(start)}


def module_of(network: AttentionNetwork, data: SyntheticReviewsDataModule) -> AttentionClassifier:
    torch.manual_seed(0)
    return AttentionClassifier(network.build(data.schema))


def test_what_applies_is_logged(tmp_path: Path) -> None:
    data = texts()
    run = trainer(tmp_path, callbacks=[ShortcutProbe()])
    special = PooledNetwork(BiLSTM(8, 6, values="local"), AdditiveAttention(attend_special=True))
    run.validate(module_of(special, data), data, verbose=False)
    found = ours(run.callback_metrics)
    post_hoc = {"post_hoc_accuracy", "post_hoc_unselected"}
    mass = {"default_mass", "default_mass/negative", "default_mass/positive"}
    assert set(found) == ALL | post_hoc | mass
    assert 0 < found["default_mass"] < 1

    run = trainer(tmp_path, callbacks=[ShortcutProbe()])
    run.validate(module_of(ContentFreeNetwork(BiLSTM(8, 6)), data), data, verbose=False)
    found = ours(run.callback_metrics)
    assert set(found) == ALL | {"head_bits", "head_bits_low", "head_bits_high"}
    assert found["length_bits"] == pytest.approx(0.0, abs=1e-6), "there are always as many default tokens"


def test_rows_are_what_the_figures_are_means_of(tmp_path: Path) -> None:
    data, probe = texts(), ShortcutProbe(metrics=["leaked_bits", "head_bits", "evalx_accuracy", "encoding_bits"])
    run = trainer(tmp_path, callbacks=[probe])
    run.validate(module_of(ContentFreeNetwork(BiLSTM(8, 6)), data), data, verbose=False)
    found, rows = ours(run.callback_metrics), probe.rows
    assert rows["index"].tolist() == list(range(40))
    assert rows["leaked"].mean() == pytest.approx(found["leaked_bits"], abs=1e-6)
    assert rows["evalx_right"].mean() == pytest.approx(found["evalx_accuracy"])
    assert ((rows["judged"] - rows["evalx"]) / np.log(2)).mean() == pytest.approx(found["encoding_bits"], abs=1e-6)
    assert bits_gained(rows["head"], rows["target"].astype(int)).mean() == pytest.approx(found["head_bits"], abs=1e-6)


def test_fit_probes_every_epoch_and_test_under_its_own_name(tmp_path: Path) -> None:
    data, logger = tiny_data(train=40, val=40, test=30), RecordingLogger()
    run = trainer(tmp_path, callbacks=[ShortcutProbe(every_n_epochs=2)], logger=logger, max_epochs=4)
    run.fit(tiny_module(data), data)
    assert len(logger.values("val/shortcut/encoding_bits")) == 2
    run.test(run.lightning_module, data, verbose=False)
    assert set(ours(run.callback_metrics, "test")) == ALL | {"post_hoc_accuracy", "post_hoc_unselected"}


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [ShortcutProbe()]):
        data = tiny_data(train=40, val=40)
        module = tiny_module(data, dropout=0.3)
        torch.manual_seed(1)
        trainer(tmp_path, callbacks=callbacks, max_epochs=2).fit(module, data)
        weights.append(module.network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_figures_are_the_same_again(tmp_path: Path) -> None:
    data = tiny_data(train=40, val=40)
    found = []
    for _ in range(2):
        run = trainer(tmp_path, callbacks=[ShortcutProbe()])
        run.validate(tiny_module(data), data, verbose=False)
        found.append(ours(run.callback_metrics))
    assert found[0] == found[1]


def test_beside_the_faithfulness_callback_each_figure_is_logged_once(tmp_path: Path) -> None:
    data = tiny_data(train=40, val=40)
    for callbacks in ([ShortcutProbe(), FaithfulnessCallback()], [FaithfulnessCallback(), ShortcutProbe()]):
        run = trainer(tmp_path, callbacks=callbacks)
        run.validate(tiny_module(data), data, verbose=False)
        assert ours(run.callback_metrics).keys() >= ALL
        assert "val/faithfulness/kendall_loo" in run.callback_metrics


def test_without_a_training_split_evaluators_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tiny_data(train=40, val=40)
    run = trainer(tmp_path, callbacks=[ShortcutProbe(metrics=["leaked_bits", "encoding_bits"])])
    with caplog.at_level("INFO"):
        run.validate(tiny_module(data), data.val_dataloader(), verbose=False)
    assert set(ours(run.callback_metrics)) == {*LEAKED, "mask_only_accuracy", "fano_bits"}
    assert "training split" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["bits"]}, "no metric 'bits'; the metrics are leaked_bits"),
        ({"train_examples": 0}, "train_examples of at least 1"),
        ({"share": 1.5}, r"share in \(0, 1\], not 1.5"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShortcutProbe(**arguments)


def test_two_of_them_are_refused(tmp_path: Path) -> None:
    data = tiny_data()
    with pytest.raises(InputError, match="Two ShortcutProbes"):
        trainer(tmp_path, callbacks=[ShortcutProbe(), ShortcutProbe()]).validate(tiny_module(data), data)


def test_bags_are_probed_too(tmp_path: Path) -> None:
    data = tiny_bags(train_size=40, val_size=40)
    run = trainer(tmp_path, callbacks=[ShortcutProbe()])
    run.validate(bag_module(data), data, verbose=False)
    assert set(ours(run.callback_metrics)) == ALL | {"post_hoc_accuracy", "post_hoc_unselected"}


def test_a_black_box_of_other_data_is_refused(tmp_path: Path) -> None:
    data, other = tiny_data(), tiny_data(processor=DefaultTokens(3))
    file = tiny_checkpoint(tmp_path, tiny_module(other), other)
    with pytest.raises(InputError, match=r"black box .* was trained for vocabulary size \d+, but the data have"):
        trainer(tmp_path, callbacks=[ShortcutProbe(black_box=file)]).validate(tiny_module(data), data)
    with pytest.raises(InputError, match="There is no checkpoint"):
        trainer(tmp_path, callbacks=[ShortcutProbe(black_box="missing.ckpt")]).validate(tiny_module(data), data)


def test_the_black_box_may_be_of_a_network_whose_layers_come_with_the_data(tmp_path: Path) -> None:
    data = tiny_data(val=40)
    file = tiny_checkpoint(tmp_path, tiny_module(data, sharpness=3.0), data)
    module = AttentionClassifier(PooledNetwork(BiLSTM(embedding_size=8, hidden_size=6)))
    run = trainer(tmp_path, callbacks=[ShortcutProbe(metrics=["post_hoc_accuracy"], black_box=file)])
    run.fit(module, data)
    assert 0 <= ours(run.callback_metrics)["post_hoc_accuracy"] <= 1
