"""`PatchNetwork`: values see their patch, keys the picture; a removed patch leaves blank paper."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_attn.attention import TopKSelection
from lightning_attn.data.bags import BagDataModule, DigitPairsDataModule, Digits
from lightning_attn.encoders import PatchEncoder
from lightning_attn.errors import InputError
from lightning_attn.mitigations import RandomPretraining
from lightning_attn.networks import PatchNetwork
from lightning_attn.perturbation.perturbations import Delete, Replace
from lightning_attn.perturbation.sweep import probabilities
from lightning_attn.tasks import AttentionClassifier
from lightning_attn.types import Batch, DataSchema
from tests.helpers.runs import trainer
from tests.helpers.toy_bags import toy_bag_network, toy_bags

GRID = (3, 4)


def picture(seed: int = 0, count: int = 2) -> Batch:
    """Whole pictures of 3 x 4 patches of 4 pixels each."""
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.arange(12) // 4, torch.arange(12) % 4
    place = torch.stack([(row + 1) / 3, (column + 1) / 4], dim=-1).expand(count, -1, -1)
    valid = torch.ones(count, 12, dtype=torch.bool)
    pixels = torch.rand(count, 12, 4, generator=generator)
    return Batch(torch.cat([pixels, place], dim=-1), valid, ~valid, torch.arange(count) % 2, torch.arange(count))


def built(values: str = "local", layers: int = 2) -> PatchNetwork:
    torch.manual_seed(0)
    network = PatchNetwork(PatchEncoder(6, 5, layers, values))  # type: ignore[arg-type]
    network.build(DataSchema(num_classes=2, feature_shape=(6,), grid=GRID))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    return network.eval()


def pixel_gradient(network: PatchNetwork, batch: Batch, part: str, position: int) -> Tensor:
    """How much keys or values at a position depend on each patch, shape ``(L,)``."""
    pixels = network.embed(batch).clone().requires_grad_()
    keys, values = network.encode(pixels, batch)
    (gradient,) = torch.autograd.grad({"keys": keys, "values": values}[part][0, position].square().sum(), pixels)
    return gradient[0].abs().sum(dim=-1)


def test_a_cell_is_counted_row_by_row_and_zeros_stand_nowhere() -> None:
    schema = DataSchema(num_classes=2, feature_shape=(6,), grid=GRID)
    assert schema.cell(picture().inputs).tolist() == [list(range(1, 13))] * 2
    outside = torch.tensor([[0.0, 0.0], [0.0, 0.5], [1.0, 0.0], [1.4, 0.5], [-0.4, 0.5], [torch.nan, 0.5]])
    assert schema.cell(outside).tolist() == [0] * 6
    with pytest.raises(InputError, match="Only patches of a picture have a place"):
        DataSchema(num_classes=2, feature_shape=(6,)).cell(outside)


@pytest.mark.parametrize("size", range(1, 30))
def test_a_cell_survives_rounding(size: int) -> None:
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size + 3), indexing="ij")
    places = torch.stack([(row + 1) / size, (column + 1) / (size + 3)], dim=-1).float()
    schema = DataSchema(num_classes=2, feature_shape=(2,), grid=(size, size + 3))
    assert torch.equal(schema.cell(places).flatten(), 1 + torch.arange(size * (size + 3)))


def test_local_values_depend_on_their_patch_alone_and_keys_on_others() -> None:
    network, batch = built(), picture()
    values = pixel_gradient(network, batch, "values", 5)
    assert (values > 0).tolist() == [position == 5 for position in range(12)]
    # Two layers see four patches in each direction: all of this picture.
    assert (pixel_gradient(network, batch, "keys", 0) > 0).all()
    assert (pixel_gradient(built("contextual"), batch, "values", 0) > 0).all()


def test_local_values_depend_on_the_place_too() -> None:
    network, batch = built(), picture(count=1)
    moved = batch.inputs.clone()
    moved[..., :4] = moved[:, 3:4, :4]  # the same pixels everywhere
    _, values = network.encode(network.embed(batch.replace(inputs=moved)), batch.replace(inputs=moved))
    assert len(values[0].unique(dim=0)) == 12


def test_keys_are_those_of_a_convolution_over_the_picture() -> None:
    network, batch = built(), picture()
    grid = batch.inputs[..., :4].transpose(1, 2).reshape(2, 4, 3, 4)
    for layer in network.encoder.context:
        if isinstance(layer, nn.Conv2d):
            grid = nn.functional.conv2d(grid, layer.weight, layer.bias, padding=2)
        else:
            grid = grid.relu()
    expected = grid.flatten(2).transpose(1, 2)
    for seen in (batch, batch.pack()):
        keys, _ = network.encode(network.embed(seen), seen)
        torch.testing.assert_close(keys.view_as(expected), expected)


def test_a_deleted_patch_is_blank_paper_that_cannot_be_attended() -> None:
    network, batch = built(), picture()
    keep = torch.ones(2, 1, 12, dtype=torch.bool)
    keep[:, 0, 3:6] = False
    blank = batch.inputs.clone()
    blank[:, 3:6, :4] = 0.0
    blank = batch.replace(inputs=blank)
    scores = network(blank).scores.masked_fill(~keep[:, 0], -torch.inf)
    expected = network(blank, attention=scores.softmax(dim=-1)).logits.softmax(dim=-1)
    torch.testing.assert_close(probabilities(network, batch, keep, Delete())[:, 0], expected)
    # Overwritten, it keeps a position in the bag but none in the picture: its key is 0 and its value says nothing.
    overwritten = Replace().apply(batch, keep[:, 0], network.schema)
    keys, values = network.encode(network.embed(overwritten), overwritten)
    assert not keys[:, 3:6].any()
    assert len(values[:, 3:6].flatten(0, 1).unique(dim=0)) == 1
    torch.testing.assert_close(keys[:, 6:], network.encode(network.embed(blank), blank)[0][:, 6:])


def test_random_pretraining_leaves_the_convolutions_to_the_scorer() -> None:
    network = built().train()
    network.set_mitigation(RandomPretraining(epochs=1))
    frozen = {parameter for module in network.mitigation.lr_scales(network, 1) for parameter in module.parameters()}
    learning = [name for name, parameter in network.named_parameters() if parameter not in frozen]
    parts = {".".join(name.split(".")[:2]) for name in learning}
    assert parts == {"encoder.context", "attention.project", "attention.direction"}


def test_it_learns_digits_and_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = DigitPairsDataModule(Digits((0, 1)), patch=2, train_size=400, val_size=100, test_size=100)
    network = PatchNetwork(PatchEncoder(16, 8, layers=2), TopKSelection(8))
    module = AttentionClassifier(network, optimizer=partial(torch.optim.Adam, lr=1e-2))
    run = trainer(tmp_path, max_epochs=5)
    run.fit(module, data)
    assert float(run.callback_metrics["val/accuracy"]) > 0.85
    run.save_checkpoint(tmp_path / "it.ckpt")
    again = AttentionClassifier.load_from_checkpoint(
        tmp_path / "it.ckpt", network=PatchNetwork(PatchEncoder(16, 8, layers=2), TopKSelection(8)), weights_only=True
    )
    assert again.network.schema == data.schema
    batch = data.dataset("test")[range(20)]
    torch.testing.assert_close(again.network.eval()(batch).logits, network.eval()(batch).logits)
    other = DigitPairsDataModule(Digits((0, 1)), patch=4, train_size=40, val_size=10, test_size=10)
    other.restore(data.export())
    with pytest.raises(InputError, match=r"trained on instances of shape \(6,\), but these data have \(18,\)"):
        other.setup()


@pytest.mark.parametrize("arguments", [{"size": 0}, {"channels": 0}, {"layers": 0}])
def test_sizes_below_1_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="size, channels and layers of at least 1"):
        PatchEncoder(**arguments)


def test_data_without_places_are_refused() -> None:
    data = BagDataModule(train_size=4, val_size=1, test_size=1)
    data.setup()
    for schema in (data.schema, DataSchema(num_classes=2, vocabulary_size=9)):
        with pytest.raises(InputError, match="PatchEncoder reads patches of a picture, but the data have none"):
            PatchNetwork().build(schema)


def test_patches_without_a_place_are_a_bag_like_any_other() -> None:
    network, batch = toy_bag_network("patches"), toy_bags()
    nowhere = batch.replace(inputs=torch.cat([batch.inputs[..., :-2], torch.zeros(4, 12, 2)], dim=-1))
    output = network(nowhere)
    assert output.logits.isfinite().all()
    torch.testing.assert_close(output.attention, batch.valid / batch.valid.sum(dim=1, keepdim=True))
