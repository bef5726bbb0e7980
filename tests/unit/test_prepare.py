import numpy as np
import pytest
from PIL import Image, ImageOps

from evaluation.prepare import CROPS, FILTERS, prepare


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (33, 64), (40, 40)])
@pytest.mark.parametrize("filter_", FILTERS)
def test_crop_and_filter_are_pillows(shape, filter_):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    side = min(shape)
    square = ImageOps.fit(Image.fromarray(picture), (side, side), Image.Resampling.NEAREST)
    expected = np.asarray(square.resize((20, 20), FILTERS[filter_]))
    if (shape[0] - shape[1]) % 2 == 0:  # an odd rest has no middle
        assert np.array_equal(prepare(picture, 20, "centre", filter_), expected)
    assert prepare(picture, 20, "centre", filter_).shape == (20, 20, 3)


def test_nothing_is_squashed_unasked():
    with pytest.raises(ValueError, match="square picture is needed where nothing is cropped, got 4x6"):
        prepare(np.zeros((6, 4, 3), np.uint8), 2, "none")
    assert set(CROPS) == {"none", "centre"}
