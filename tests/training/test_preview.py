from __future__ import annotations

import io

import numpy as np
from PIL import Image

from sarx.training.loop import train
from sarx.training.preview import palette, preview


def test_a_picture_shows_images_labels_and_predictions(tiny):
    config = tiny(training__steps=2, training__images_logged=2)
    result = next(train(config))
    ((tag, png),) = preview(config, result.module.model)
    assert tag == "predictions/image_label_prediction"
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert picture.shape == (2 * 2 * (64 + 2), 2 * (3 * 64 + 2 * 2), 3)
    assert picture.std() > 0


def test_every_class_has_a_color_of_its_own():
    colors = palette(11, 255)
    assert len({tuple(color) for color in colors[:11]}) == 11
    assert colors[255].tolist() == [255, 255, 255]


def test_no_picture_when_none_is_wanted(tiny):
    config = tiny(training__steps=2, training__images_logged=0)
    assert preview(config, next(train(config)).module.model) == []
