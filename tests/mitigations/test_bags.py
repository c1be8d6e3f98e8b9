"""Both mitigations on packed bags, and the mask classifier that does not read places."""

import csv
from pathlib import Path

import pytest
import torch

from lightning_attn.cli.commands import main
from lightning_attn.mitigations import (
    BagMaskClassifier,
    Compose,
    InstanceWeighting,
    RandomPretraining,
    SetMaskClassifier,
)
from lightning_attn.types import DataSchema
from tests.helpers.toy_bags import BAG_NETWORKS, toy_bag_network, toy_bags
from tests.helpers.toys import toy_batch

CONFIGS = Path(__file__).parents[2] / "configs"


def scrambled(attention: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """The weights of each bag in another order."""
    order = (torch.rand(attention.shape) + 2.0 * ~allowed).argsort(dim=1)
    return attention.gather(1, order)


@pytest.mark.parametrize(("kind", "reads_places"), [(BagMaskClassifier, False), (SetMaskClassifier, True)])
def test_the_order_of_the_instances_tells_the_mask_classifier_nothing(
    kind: type[SetMaskClassifier], reads_places: bool
) -> None:
    torch.manual_seed(0)
    classifier = kind()
    classifier.make_layers(2)
    allowed = toy_bags().valid
    attention = torch.rand(4, 12).masked_fill(~allowed, 0.0)
    attention = attention / attention.sum(dim=1, keepdim=True)
    before, after = classifier(attention, allowed), classifier(scrambled(attention, allowed), allowed)
    assert torch.allclose(before, after, atol=1e-6) is not reads_places


@pytest.mark.parametrize(
    ("features", "grid", "expected"),
    [((4,), None, BagMaskClassifier), (None, None, SetMaskClassifier), ((6,), (2, 3), SetMaskClassifier)],
)
def test_bags_whose_order_says_nothing_get_the_mask_classifier_without_places(
    features: tuple[int] | None, grid: tuple[int, int] | None, expected: type
) -> None:
    mitigation = InstanceWeighting()
    mitigation.build(DataSchema(num_classes=2, vocabulary_size=30, feature_shape=features, grid=grid))
    assert [type(classifier) for classifier in mitigation.classifiers] == [expected, expected]
    chosen = InstanceWeighting(SetMaskClassifier())
    chosen.build(DataSchema(num_classes=2, feature_shape=(4,)))
    assert [type(classifier) for classifier in chosen.classifiers] == [SetMaskClassifier, SetMaskClassifier]


@pytest.mark.parametrize("kind", sorted(set(BAG_NETWORKS) - {"max", "mean"}))
@pytest.mark.parametrize("multi_label", [False, True])
def test_both_mitigations_act_on_packed_bags(kind: str, multi_label: bool) -> None:
    network = toy_bag_network(kind, multi_label=multi_label)
    mitigation = Compose([RandomPretraining(epochs=1), InstanceWeighting(warmup_steps=0)])
    network.set_mitigation(mitigation)
    batch = toy_bags((5, 3, 8, 2, 6, 4), multi_label=multi_label).pack()
    network.train()
    mitigation.lr_scales(network, 0)
    random = network(batch)
    assert not torch.allclose(random.attention, random.learned)
    assert mitigation.weigh(random.learned, batch) is None, "unweighted while the head sees random attention"
    frozen = mitigation.lr_scales(network, 1)
    assert set(frozen.values()) == {0.0}
    learned = network(batch)
    assert torch.equal(learned.attention, learned.learned)
    weights = mitigation.weigh(learned.learned, batch)
    assert weights.shape == batch.target.shape
    assert mitigation.auxiliary_loss(learned, batch, network).isfinite()


def test_weights_do_not_depend_on_packing() -> None:
    found = []
    for batch in (toy_bags(), toy_bags().pack()):
        torch.manual_seed(0)
        network = toy_bag_network()
        network.set_mitigation(InstanceWeighting(warmup_steps=0))
        found.append(network.mitigation.weigh(network(batch).learned, batch))
    torch.testing.assert_close(*found)


def test_texts_keep_their_mask_classifier() -> None:
    torch.manual_seed(0)
    mitigation = InstanceWeighting(warmup_steps=0)
    mitigation.build(DataSchema(num_classes=2, vocabulary_size=30))
    batch = toy_batch()
    weights = mitigation.weigh(torch.rand(4, 12).masked_fill(~batch.valid, 0.0), batch)
    assert weights.shape == (4,)


@pytest.mark.parametrize("overlay", ["none", "random_pretraining", "instance_weighting", "both"])
def test_the_overlays_train_bags(overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    files = [CONFIGS / "bags" / "conjunction.yaml", CONFIGS / "mitigations" / f"{overlay}.yaml"]
    sizes = {"train_size": 40, "val_size": 20, "test_size": 20}
    command = ["fit", *(part for file in files for part in ("--config", str(file))), "--trainer.max_epochs=4"]
    command += [f"--data.init_args.{name}={value}" for name, value in sizes.items()]
    command += ["--trainer.accelerator=cpu", "--trainer.devices=1", f"--trainer.default_root_dir={tmp_path}"]
    assert main(command) == 0
    (table,) = tmp_path.rglob("metrics.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    phases = [float(row["mitigation/phase"]) for row in rows if row.get("mitigation/phase")]
    assert phases == ([0, 0, 0, 1] if overlay in ("random_pretraining", "both") else [1, 1, 1, 1])
    assert ("mitigation/effective_sample_size" in rows[0]) == (overlay in ("instance_weighting", "both"))
    assert sum(bool(row.get("val/instances/auroc")) for row in rows) == 4
