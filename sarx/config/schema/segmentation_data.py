"""Options of the segmentation data sets in files. Their defaults are the published settings of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.schema.class_file import read_class_file
from sarx.config.schema.files import MODES, FilesConfig
from sarx.config.schema.options import option


@dataclass(kw_only=True, slots=True)
class CityscapesConfig(FilesConfig):
    """Cityscapes, fine annotations (19 classes). ``root`` holds leftImg8bit/ and gtFine/."""

    task: ClassVar[str] = "segmentation"
    num_classes: ClassVar[int] = 19
    name: str = "cityscapes"

    def __post_init__(self) -> None:
        """Check every field."""
        self.check()


@dataclass(kw_only=True, slots=True)
class ADE20KConfig(FilesConfig):
    """ADE20K, scene parsing (150 classes). ``root`` is ADEChallengeData2016: images/ and annotations/."""

    task: ClassVar[str] = "segmentation"
    num_classes: ClassVar[int] = 150
    name: str = "ade20k"
    resize_height: int = option(512, low=8, high=65_536)
    crop_width: int = option(512, low=8, high=16_384)
    window: int = option(512, low=8, high=16_384)
    stride: int = option(341, low=1, high=16_384)

    def __post_init__(self) -> None:
        """Check every field."""
        self.check()


@dataclass(kw_only=True, slots=True)
class PascalContextConfig(FilesConfig):
    """PASCAL-Context (59 classes). ``root`` is VOCdevkit/VOC2010.

    ``background`` makes background a class of its own, the first of 60; else it is ignored.
    """

    task: ClassVar[str] = "segmentation"
    name: str = "pascal_context"
    background: bool = False
    resize_height: int = option(520, low=8, high=65_536)
    resize_width: int = option(520, low=8, high=65_536)
    crop_height: int = option(480, low=8, high=16_384)
    crop_width: int = option(480, low=8, high=16_384)
    evaluation: str = option("slide", choices=MODES)

    @property
    def num_classes(self) -> int:
        """Return 60 with background, else 59."""
        return 60 if self.background else 59

    def __post_init__(self) -> None:
        """Check every field."""
        self.check()


@dataclass(kw_only=True, slots=True)
class CocoStuffConfig(FilesConfig):
    """COCO-Stuff (171 classes), ``variant`` 164k or 10k. ``root`` holds images/ and annotations/."""

    task: ClassVar[str] = "segmentation"
    num_classes: ClassVar[int] = 171
    name: str = "coco_stuff"
    variant: str = option("164k", choices=("164k", "10k"))
    resize_height: int = option(512, low=8, high=65_536)
    crop_width: int = option(512, low=8, high=16_384)
    window: int = option(512, low=8, high=16_384)
    stride: int = option(341, low=1, high=16_384)

    def __post_init__(self) -> None:
        """Check every field."""
        self.check()


@dataclass(kw_only=True, slots=True)
class FolderConfig(FilesConfig):
    """A data set of one's own; as many classes as classes.txt has lines.

    ``root`` holds classes.txt and either {train,val}/{images,masks}/ or images/, masks/, train.txt, val.txt.

    Masks hold class indices, 255 is ignored. ``val`` is what papers would report on (split ``test``).
    """

    task: ClassVar[str] = "segmentation"
    name: str = "folder"
    resize_height: int = option(512, low=8, high=65_536)
    crop_width: int = option(512, low=8, high=16_384)
    window: int = option(512, low=8, high=16_384)
    stride: int = option(341, low=1, high=16_384)

    @property
    def num_classes(self) -> int:
        """Return the number of lines of classes.txt.

        Raises:
            UserError: If there is no such file, or if it is wrong.
        """
        return len(read_class_file(self.root))

    def __post_init__(self) -> None:
        """Check every field."""
        self.check()
