"""Bags drawn as rows of images."""

import pytest
import torch
from matplotlib.patches import Rectangle

from lightning_attn.visualization.bag_figure import BagRow, bag_figure, is_image


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_images_stand_in_the_order_of_their_weights_with_frames_around_keys() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 3, 3)
    row = BagRow("a bag", images, torch.tensor([0.1, 0.6, 0.0, 0.3]), torch.tensor([0.0, 1.0, 0.0, 0.0]))
    figure = bag_figure([row])
    drawn = [float(image.get_array().mean()) for image in figure.axes[0].images]
    assert drawn == [1.0, 3.0, 0.0, 2.0]
    assert texts(figure) == ["a bag", "0.60", "0.30", "0.10", "0.00"]
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_fill()]
    heights = torch.tensor([bar.get_height() for bar in bars])
    torch.testing.assert_close(heights / heights[0], torch.tensor([1.0, 0.5, 1 / 6, 0.0]))
    (frame,) = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert frame.get_x() == pytest.approx(bars[0].get_x())


def test_large_bags_show_what_counts_and_say_what_is_missing() -> None:
    weights = torch.arange(50.0) / torch.arange(50.0).sum()
    figure = bag_figure(
        [BagRow("$large$", torch.rand(50, 8, 8), weights), BagRow("one", torch.rand(1, 8, 8), weights[:1])], most=6
    )
    assert len(figure.axes[0].images) == 7
    assert texts(figure)[0] == "$large$\n44 more images"
    assert texts(figure)[-2:] == ["one", "0.00"]
    figure.canvas.draw()  # nothing to read as mathematics, no division by a largest weight of 0


def test_colours_are_drawn_in_one_range_a_bag() -> None:
    images = torch.stack([torch.full((3, 2, 2), -1.0), torch.full((3, 2, 2), 3.0)])
    figure = bag_figure([BagRow("", images, torch.tensor([0.9, 0.1]))])
    assert [float(image.get_array().mean()) for image in figure.axes[0].images] == [0.0, 1.0]
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("shape", "image"),
    [((8, 8), True), ((1, 8, 8), True), ((3, 8, 8), True), ((2, 8, 8), False), ((8,), False), (None, False)],
)
def test_what_is_an_image(shape: tuple[int, ...] | None, image: bool) -> None:
    assert is_image(shape) is image
