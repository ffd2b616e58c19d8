"""Options of data sets that are read from image files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option
from sarx.config.schema.roots import resolved

MODES = ("whole", "slide", "multi_scale", "multi_scale_slide")


@dataclass(kw_only=True, slots=True)
class FilesConfig:
    """Where the files are, how training images are changed, how images are predicted.

    A training image is scaled to fit ``resize_width`` x ``resize_height`` (the longer side within the larger
    number, the shorter within the smaller), times a factor drawn from [``ratio_low``, ``ratio_high``]; cut
    to ``crop_height`` x ``crop_width``, ten times at most until no class has more than ``max_class_share`` of
    the labelled pixels; flipped with probability ``flip``; distorted in brightness, contrast, saturation and
    hue if ``photometric``; padded with the mean colour, which is ignored.

    ``evaluation`` predicts the image scaled as above without a factor: ``whole``; ``slide`` averages windows
    of ``window`` pixels, ``stride`` apart; ``multi_scale`` averages the factors .5 to 1.75 in steps of .25,
    flipped too; ``multi_scale_slide`` does so with windows.

    ``selection: val`` keeps a fixed part of the training images for search and the choice of the winner;
    confirm trials train on all of them and are scored on the official validation images. ``report`` searches
    on the latter and says so in the table. ``unlabelled`` is a folder of images without labels for
    ``training.unlabelled_weight``.
    """

    held_out: ClassVar[bool] = True
    root: str = option("", identity=False)
    selection: str = option("val", choices=("val", "report"))
    resize_height: int = option(1024, low=8, high=65_536)
    resize_width: int = option(2048, low=8, high=65_536)
    ratio_low: float = option(0.5, above=0.0, high=16.0)
    ratio_high: float = option(2.0, above=0.0, high=16.0)
    crop_height: int = option(512, low=8, high=16_384)
    crop_width: int = option(1024, low=8, high=16_384)
    max_class_share: float = option(0.75, above=0.0, high=1.0)
    flip: float = option(0.5, low=0.0, high=1.0)
    photometric: bool = True
    evaluation: str = option("whole", choices=MODES)
    window: int = option(480, low=8, high=16_384)
    stride: int = option(320, low=1, high=16_384)
    unlabelled: str = option("", identity=False)
    workers: int = option(2, low=0, high=256, identity=False)
    cache: bool = option(False, identity=False)

    def check(self) -> None:
        """Check every field and what two of them must agree on.

        Raises:
            UserError: Naming the key.
        """
        check_fields(self, "data")
        self.root = resolved(self.root, str(getattr(self, "name", "")))
        self.unlabelled = resolved(self.unlabelled, "") if self.unlabelled else ""
        if self.ratio_low > self.ratio_high:
            raise UserError(
                f"{self.ratio_low:g} is above data.ratio_high = {self.ratio_high:g}", key="data.ratio_low"
            )
        if self.stride > self.window:
            raise UserError(
                f"{self.stride} is above data.window = {self.window}: pixels between windows would have no "
                "prediction",
                key="data.stride",
            )
