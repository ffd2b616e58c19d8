"""Options of the long-tailed classification data sets in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option
from sarx.config.schema.roots import resolved


@dataclass(kw_only=True, slots=True)
class Cifar10LTConfig:
    """CIFAR-10 with an exponential tail. ``root`` holds cifar-10-python.tar.gz or cifar-10-batches-py/.

    Class c keeps ``5000 imbalance^(-c/9)`` training images (Cao et al., NeurIPS 2019). ``selection: val``
    keeps a tenth of the images of every class, balanced, for search and the choice of the winner.
    ``crop_flip`` pads training images by 4 pixels, cuts them back at random and mirrors every other one.
    """

    task: ClassVar[str] = "classification"
    num_classes: ClassVar[int] = 10
    held_out: ClassVar[bool] = True
    name: str = "cifar10_lt"
    root: str = option("", identity=False)
    selection: str = option("val", choices=("val", "report"))
    imbalance: float = option(100.0, low=1.0, high=1000.0)
    crop_flip: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "data")
        self.root = resolved(self.root, self.name)


@dataclass(kw_only=True, slots=True)
class Cifar100LTConfig:
    """CIFAR-100 with an exponential tail: ``500 imbalance^(-c/99)``; else as CIFAR-10."""

    task: ClassVar[str] = "classification"
    num_classes: ClassVar[int] = 100
    held_out: ClassVar[bool] = True
    name: str = "cifar100_lt"
    root: str = option("", identity=False)
    selection: str = option("val", choices=("val", "report"))
    imbalance: float = option(100.0, low=1.0, high=1000.0)
    crop_flip: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "data")
        self.root = resolved(self.root, self.name)


@dataclass(kw_only=True, slots=True)
class ImageNetLTConfig:
    """ImageNet-LT (1000 classes; Liu et al., CVPR 2019), by list files of ``path label`` lines.

    Paths are below ``root``, and so are the lists unless they are absolute. Selection is the list of
    validation images, report that of test images.
    """

    task: ClassVar[str] = "classification"
    num_classes: ClassVar[int] = 1000
    held_out: ClassVar[bool] = False
    name: str = "imagenet_lt"
    root: str = option("", identity=False)
    selection: str = option("val", choices=("val", "report"))
    list_train: str = option("ImageNet_LT_train.txt", identity=False)
    list_val: str = option("ImageNet_LT_val.txt", identity=False)
    list_test: str = option("ImageNet_LT_test.txt", identity=False)
    crop: int = option(224, low=8, high=4096)
    resize: int = option(256, low=8, high=4096)
    workers: int = option(2, low=0, high=256, identity=False)
    cache: bool = option(False, identity=False)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "data")
        check_crop(self.crop, self.resize)
        self.root = resolved(self.root, self.name)


@dataclass(kw_only=True, slots=True)
class INaturalistConfig:
    """INaturalist 2018 (8142 species), by list files as ImageNet-LT.

    Its test labels are withheld: report is the official validation list, selection a held-out tenth of the
    training images (``list_val`` empty) or a list of one's own.
    """

    task: ClassVar[str] = "classification"
    num_classes: ClassVar[int] = 8142
    held_out: ClassVar[bool] = True
    name: str = "inaturalist"
    root: str = option("", identity=False)
    selection: str = option("val", choices=("val", "report"))
    list_train: str = option("iNaturalist18_train.txt", identity=False)
    list_val: str = option("", identity=False)
    list_test: str = option("iNaturalist18_val.txt", identity=False)
    crop: int = option(224, low=8, high=4096)
    resize: int = option(256, low=8, high=4096)
    workers: int = option(2, low=0, high=256, identity=False)
    cache: bool = option(False, identity=False)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "data")
        check_crop(self.crop, self.resize)
        self.root = resolved(self.root, self.name)


def check_crop(crop: int, resize: int) -> None:
    """Refuse a centre crop that is larger than the resized image: it would be filled up with black.

    Raises:
        UserError: Naming data.crop.
    """
    if crop > resize:
        raise UserError(
            f"{crop} is more than data.resize = {resize}, the shorter side of a test image", key="data.crop"
        )
