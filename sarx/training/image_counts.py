"""What each image adds to the scores: pixels per class that are right, predicted and labelled.

Legend: B images of a batch, C classes. In classification an image is one pixel.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor

FILE = "images.parquet"


class ImageCounts:
    """Counts per image and class of one pass over a split, fed batch by batch.

    From their sums over any choice of images every score of that choice follows, so that the noise of the
    images can be told from that of the seeds (protocol 14).
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        """Start with no image.

        Args:
            num_classes: C.
            ignore_index: Label of pixels that do not count.
        """
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._images: list[Tensor] = []
        self._counts: list[Tensor] = []

    def add(self, indices_B: Tensor, labels: Tensor, predictions: Tensor) -> None:
        """Count a batch.

        Args:
            indices_B: (B,) which image of the split each is.
            labels: (B, H, W) or (B,) integer.
            predictions: Of the same shape, classes.
        """
        rows = len(labels)
        true, predicted = labels.reshape(rows, -1).long(), predictions.reshape(rows, -1).long()
        valid = true != self.ignore_index
        place = torch.arange(rows, device=true.device)[:, None] * self.num_classes

        def count(classes: Tensor, chosen: Tensor) -> Tensor:
            keys = (place + classes)[chosen]
            found = torch.bincount(keys, minlength=rows * self.num_classes)
            return found.reshape(rows, self.num_classes).cpu()

        right = valid & (true == predicted)
        self._counts.append(
            torch.stack([count(true, right), count(predicted, valid), count(true, valid)], dim=2)
        )
        self._images.append(indices_B.cpu())

    def arrays(self) -> dict[str, Tensor]:
        """Return the columns of the table: a row per image and class that it shows or is said to show.

        ``image`` and ``class`` int64; ``intersection`` (pixels of the class that are predicted so),
        ``predicted`` and ``true`` int64. Rows are in the order of images, then of classes.
        """
        images = torch.cat(self._images)
        order = images.argsort(stable=True)
        counts = torch.cat(self._counts)[order]
        image, found = (counts[:, :, 1:].sum(2) > 0).nonzero(as_tuple=True)
        intersection, predicted, true = counts[image, found].unbind(1)
        return {
            "image": images[order][image],
            "class": found,
            "intersection": intersection,
            "predicted": predicted,
            "true": true,
        }

    def parquet(self) -> bytes:
        """Return the table of ``arrays`` as Parquet."""
        import pyarrow as pa
        from pyarrow import parquet

        types = {"image": pa.int32(), "class": pa.int16()}
        columns = {
            name: pa.array(values.numpy(), types.get(name, pa.int64()))
            for name, values in self.arrays().items()
        }
        buffer = io.BytesIO()
        parquet.write_table(pa.table(columns), buffer, compression="zstd")
        return buffer.getvalue()
