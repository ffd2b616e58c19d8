"""How images read from files become training samples and test images: pure functions of pixels and a seed.

Pixels stay uint8; normalisation happens on the device. Nothing here touches a global generator: the numbers
behind a sample come from the one seed it is called with (``draws.augmentation_seed``), so they are the same
whatever ranks, workers and resumes there are.
"""

from __future__ import annotations

from sarx.data.transforms.classification import crop_flip, random_resized_crop, resize_centre_crop
from sarx.data.transforms.draws import augmentation_seed
from sarx.data.transforms.segmentation import resized_for_test, train_transform
from sarx.data.transforms.sizes import scaled_size

__all__ = [
    "augmentation_seed",
    "crop_flip",
    "random_resized_crop",
    "resize_centre_crop",
    "resized_for_test",
    "scaled_size",
    "train_transform",
]
