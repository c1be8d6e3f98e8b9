"""`InstanceCallback`: every bag of the split, once, whatever the stage."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from lightning_attn.attribution import GradientXInput, Occlusion, get
from lightning_attn.callbacks import FaithfulnessCallback, InstanceCallback
from lightning_attn.callbacks.instances import CONTROLS
from lightning_attn.data.bags import BagDataModule, FixedSize, GaussianClusters, Presence
from lightning_attn.encoders import MLP
from lightning_attn.errors import InputError
from lightning_attn.metrics import PooledAUROC, PooledAveragePrecision, class_log_weights, instance_aopc_r
from lightning_attn.metrics.functional import INSTANCE_MEASURES, instance_measures, ranked_measures
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import BagNetwork, ClassBagNetwork, InstanceNetwork
from tests.helpers.runs import RecordingLogger, bag_module, loader, tiny_bags, tiny_data, tiny_module, trainer


def figures(run: Trainer, split: str) -> dict[str, float]:
    return {
        name.removeprefix(f"{split}/"): float(value)
        for name, value in run.callback_metrics.items()
        if name.startswith(f"{split}/instances")
    }


@pytest.mark.parametrize("kind", [BagNetwork, ClassBagNetwork])
def test_figures_are_those_of_a_direct_call_on_every_bag(tmp_path: Path, kind: type[InstanceNetwork]) -> None:
    data = tiny_bags()
    module = bag_module(data, kind(MLP((8,))))
    run = trainer(tmp_path, callbacks=[InstanceCallback()])
    run.validate(module, data, verbose=False)
    logged = figures(run, "val")
    assert set(logged) == {
        *(f"instances/{name}" for name in INSTANCE_MEASURES),
        *("instances/skipped", "instances/pooled_auroc", "instances/pooled_average_precision"),
    }
    batch = data.dataset("val")[range(21)]
    with torch.no_grad():
        logs = class_log_weights(module.network, module.network.eval()(batch), batch, batch.target)
    values = instance_measures(logs, batch.evidence, batch.inner)
    for name, value in values.items():
        assert logged[f"instances/{name}"] == pytest.approx(float(value.nanmean()), abs=1e-5), name
    assert logged["instances/skipped"] == int(values["auroc"].isnan().sum()) > 0
    for name, metric in (("pooled_auroc", PooledAUROC()), ("pooled_average_precision", PooledAveragePrecision())):
        metric.update(logs, batch)
        assert logged[f"instances/{name}"] == pytest.approx(float(metric.compute()), abs=1e-5)


def test_controls_and_removal_are_measured_in_test(tmp_path: Path) -> None:
    data = tiny_bags()
    module = bag_module(data)
    run = trainer(tmp_path, callbacks=[InstanceCallback(max_examples=None)])
    run.test(module, data, verbose=False)
    logged = figures(run, "test")
    batch = data.dataset("test")[range(21)].padded()
    module.network.eval()
    methods = {name: get(name) for name in CONTROLS}
    methods |= {"gradient_x_input": GradientXInput(attention_fixed=False), "occlusion": Occlusion(signed=True)}
    for control, method in methods.items():
        found = ranked_measures(method.attribute(module.network, batch, batch.target), batch.evidence, batch.inner)
        for name, value in found.items():
            key = f"instances_controls/{control}/{name}"
            assert logged[key] == pytest.approx(float(value.nanmean()), abs=1e-5), key
    assert logged["instances_controls/uniform/auroc"] == 0.5
    assert logged["instances_controls/attention/auroc"] == pytest.approx(logged["instances/auroc"])
    expected = float(instance_aopc_r(module.network, batch).nanmean())
    assert logged["instances/aopc_r"] == pytest.approx(expected, abs=1e-5)


def test_a_sample_is_enough_for_the_controls(tmp_path: Path) -> None:
    data = tiny_bags()
    callback = InstanceCallback(controls=["random"], max_examples=5, orders=0)
    run = trainer(tmp_path, callbacks=[callback])
    run.test(bag_module(data), data, verbose=False)
    logged = figures(run, "test")
    assert {name.split("/")[1] for name in logged if name.startswith("instances_controls/")} == {"attention", "random"}
    assert "instances/aopc_r" not in logged
    assert logged["instances/key_rate"] == pytest.approx(
        float(instance_measures(*measured_inputs(data))["key_rate"].nanmean())
    ), "the other figures are of all bags"


def measured_inputs(data: BagDataModule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = data.dataset("test")[range(21)]
    return torch.zeros(batch.valid.shape, dtype=torch.float64), batch.evidence, batch.inner


def test_every_epoch_is_measured_beside_the_bag_metrics(tmp_path: Path) -> None:
    data, logger = tiny_bags(), RecordingLogger()
    run = trainer(tmp_path, max_epochs=3, logger=logger, num_sanity_val_steps=2, callbacks=[InstanceCallback()])
    run.fit(bag_module(data), data)
    rows = [row for row in logger.rows if "val/instances/auroc" in row]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all("val/auroc" in row for row in rows)
    assert not any(name.startswith("val/instances_controls") for row in rows for name in row)


def test_validate_gives_what_the_last_epoch_of_fit_gave(tmp_path: Path) -> None:
    data = tiny_bags()
    module = bag_module(data)
    run = trainer(tmp_path, max_epochs=2, callbacks=[InstanceCallback()])
    run.fit(module, data)
    last = figures(run, "val")
    run.validate(module, data, verbose=False)
    assert figures(run, "val") == pytest.approx(last, abs=1e-6)


def test_epochs_and_splits_that_are_not_measured_log_nothing(tmp_path: Path) -> None:
    data, logger = tiny_bags(), RecordingLogger()
    callback = InstanceCallback(every_n_epochs=2, splits=["val"])
    run = trainer(tmp_path, max_epochs=3, logger=logger, callbacks=[callback])
    module = bag_module(data)
    run.fit(module, data)
    assert [row["epoch"] for row in logger.rows if "val/instances/auroc" in row] == [1]
    run.test(module, data, verbose=False)
    assert not figures(run, "test")


def test_training_is_the_same_to_the_last_bit_with_and_without(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [InstanceCallback(), FaithfulnessCallback(max_examples=8)]):
        data = tiny_bags()
        module = bag_module(data, BagNetwork(MLP((8,), dropout=0.3)), mitigation=RandomPretraining(epochs=1))
        torch.manual_seed(1)
        trainer(tmp_path, max_epochs=3, callbacks=callbacks).fit(module, data)
        weights.append(module.state_dict())
    assert weights[0].keys() == weights[1].keys()
    torch.testing.assert_close(dict(weights[0]), dict(weights[1]), rtol=0, atol=0)


def test_data_without_evidence_are_not_measured(tmp_path: Path) -> None:
    data = tiny_bags()
    batches = loader(*(data.dataset("val")[range(n, n + 5)].replace(evidence=None) for n in (0, 5)))
    run = trainer(tmp_path, callbacks=[InstanceCallback()])
    run.test(bag_module(data), batches, verbose=False)
    assert not figures(run, "test")
    assert "test/auroc" in run.callback_metrics


def test_texts_with_evidence_are_measured_too(tmp_path: Path) -> None:
    data = tiny_data(val=12)
    run = trainer(tmp_path, callbacks=[InstanceCallback()])
    run.validate(tiny_module(data), data, verbose=False)
    assert 0 < figures(run, "val")["instances/key_rate"] < 1


def test_bags_that_are_all_key_are_skipped_and_counted(tmp_path: Path) -> None:
    data = BagDataModule(Presence(), GaussianClusters(), FixedSize(1), val_size=10, batch_size=4)
    data.setup("fit")
    run = trainer(tmp_path, callbacks=[InstanceCallback()])
    run.validate(bag_module(data), data, verbose=False)
    assert not figures(run, "val"), "a bag of one instance has nothing to find"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs of at least 1, not 0"),
        ({"max_examples": 0}, "max_examples of at least 1"),
        ({"max_tokens": -1}, "max_tokens of at least 1"),
        ({"orders": -1}, "orders of at least 0"),
        ({"splits": ["train"]}, "no split 'train'; the splits are val, test"),
        ({"controls": ["chance"]}, "no attribution method 'chance'; the methods are"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InstanceCallback(**arguments)


def test_two_of_them_are_refused(tmp_path: Path) -> None:
    data = tiny_bags()
    with pytest.raises(InputError, match="leave one of them out"):
        trainer(tmp_path, callbacks=[InstanceCallback(), InstanceCallback()]).validate(bag_module(data), data)
