"""How fast Cityscapes samples are made: ``just bench data``.

The training pipeline of Cityscapes (scale .5 to 2, crop 512x1024, mirror, colours) from 2048x1024 PNG files,
by sarx and by the plain way: Pillow resizes the whole image, torchvision crops, mirrors and jitters Pillow
images, ToTensor, Normalize. Both get the same random numbers, run in a DataLoader with 2 workers and end as
normalised float32 batches of 2 with int64 labels; sarx normalises in the process that would train, the plain
way in the workers. They take turns in rounds; a bar compares the best rounds. The files are made up (see
street_files.py).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bars import at_least
from PIL import Image
from street_files import IGNORED, train_ids, write_all
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sarx.config.schema.files import FilesConfig
from sarx.data.transforms import augmentation_seed, scaled_size, train_transform
from sarx.data.transforms.colour import draw_distortion
from sarx.data.transforms.crop import is_mixed
from sarx.data.transforms.draws import draw
from sarx.training.evaluation import normalise
from tests.data.transforms.literal import literal_distortion, literal_sample

CONFIG = FilesConfig()
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STATISTICS: Any = SimpleNamespace(mean=MEAN, std=STD)
TRAIN_IDS = train_ids()
BATCH, WORKERS = 2, 2
LEAST_WITHOUT_DECODE, LEAST_WITH_DECODE = 1.5, 1.1
TOLERANCE = (1, 2)
"""Levels: of pixels (float32 against float64 at a half) and of distorted ones (contrast may double it)."""

Files = list[tuple[Path, Path]]


def read_pillow(paths: tuple[Path, Path]) -> tuple[Image.Image, Image.Image]:
    """Decode an image and its label map, with training ids, as Pillow images."""
    image = Image.open(paths[0]).convert("RGB")
    return image, Image.fromarray(TRAIN_IDS[np.asarray(Image.open(paths[1]))])


def read_arrays(paths: tuple[Path, Path]) -> tuple[np.ndarray, np.ndarray]:
    """Decode an image, uint8 (3, H, W) as a view of (H, W, 3), and its label map, uint8 (H, W)."""
    image = np.asarray(Image.open(paths[0]).convert("RGB")).transpose(2, 0, 1)
    return image, TRAIN_IDS[np.asarray(Image.open(paths[1]))]


def plain(image: Image.Image, label: Image.Image, seed: int) -> tuple[Tensor, Tensor]:
    """Make a sample the plain way: normalised float32 (3, h, w), int64 (h, w)."""
    draws = draw(seed)
    ratio = CONFIG.ratio_low + (CONFIG.ratio_high - CONFIG.ratio_low) * draws.ratio
    height, width = scaled_size(
        (label.height, label.width), (CONFIG.resize_height, CONFIG.resize_width), ratio
    )
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    label = label.resize((width, height), Image.Resampling.NEAREST)
    ids = np.asarray(label)
    for row, column in draws.corners:
        top, left = (
            int(row * (height - CONFIG.crop_height + 1)),
            int(column * (width - CONFIG.crop_width + 1)),
        )
        crop = ids[top : top + CONFIG.crop_height, left : left + CONFIG.crop_width]
        if is_mixed(crop, CONFIG.max_class_share, IGNORED):
            break
    image = F.crop(image, top, left, CONFIG.crop_height, CONFIG.crop_width)
    label = F.crop(label, top, left, CONFIG.crop_height, CONFIG.crop_width)
    if draws.flip < CONFIG.flip:
        image, label = F.hflip(image), F.hflip(label)
    image = jitter(image, draws.colour)
    return F.normalize(F.to_tensor(image), MEAN, STD), torch.from_numpy(np.array(label)).long()


def jitter(image: Image.Image, numbers: np.ndarray) -> Image.Image:
    """Distort colours with what ColorJitter is made of, each part on every other image."""
    drawn = draw_distortion(numbers)
    if drawn.brightness:
        image = F.adjust_brightness(image, 1 + drawn.brightness / 128)
    if drawn.contrast != 1:
        image = F.adjust_contrast(image, drawn.contrast)
    if drawn.saturation != 1:
        image = F.adjust_saturation(image, drawn.saturation)
    if drawn.hue:
        image = F.adjust_hue(image, drawn.hue / 360)
    return image


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Sample i is file i modulo their number, changed with the i-th seed."""

    def __init__(self, files: list[Any], read: Callable[[Any], Any] | None, make: Callable[..., Any]) -> None:
        """Take paths and how to read them, or what has been read."""
        self.files, self.read, self.make = files, read, make

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Make a sample."""
        file = self.files[index % len(self.files)]
        image, label = file if self.read is None else self.read(file)
        return self.make(image, label, augmentation_seed(0, index, 0))


class Round:
    """The indices of one round: no sample is made twice."""

    def __init__(self, count: int) -> None:
        """Begin with round 0 of ``count`` samples."""
        self.count, self.number = count, 0

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of the round."""
        return iter(range(self.number * self.count, (self.number + 1) * self.count))

    def __len__(self) -> int:
        """Return the number of samples in a round."""
        return self.count


def finish_sarx(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise a batch."""
    return normalise(images, STATISTICS, torch.device("cpu")), labels.long()


def finish_plain(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Leave a batch as it came."""
    return images, labels


def take_turns(datasets: dict[str, Dataset[Any]], count: int, rounds: int) -> dict[str, list[float]]:
    """Return images/s of each contender in each round, after one round that does not count."""
    finish = {"sarx": finish_sarx, "plain": finish_plain}
    turns = {name: Round(count) for name in datasets}
    loaders = {
        name: DataLoader(
            dataset,
            BATCH,
            sampler=turns[name],
            num_workers=WORKERS,
            persistent_workers=True,
            prefetch_factor=2,
        )
        for name, dataset in datasets.items()
    }
    speeds: dict[str, list[float]] = {name: [] for name in datasets}
    for number in range(rounds + 1):
        for name, loader in loaders.items():
            turns[name].number, turns[name].count = number, count if number else 4 * BATCH
            started, seen = time.perf_counter(), 0
            for batch in loader:
                images, labels = finish[name](*batch)
                assert images.dtype == torch.float32
                assert labels.dtype == torch.int64
                seen += len(images)
            if number:
                speeds[name].append(seen / (time.perf_counter() - started))
    return speeds


def report(title: str, speeds: dict[str, list[float]]) -> float:
    """Print one table and return how many times faster sarx is in the best rounds."""
    best = {name: max(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        middle = statistics.median(values)
        print(f"{title:16s} {name:8s} {best[name]:10.1f} {middle:10.1f} {1e3 * WORKERS / best[name]:12.1f}")
    return best["sarx"] / best["plain"]


def decode_ms(files: Files) -> tuple[float, float]:
    """Return the milliseconds in which one process reads one image and its label map: Pillow, arrays."""
    found = []
    for read in (read_pillow, read_arrays):
        times = []
        for paths in files[:12]:
            started = time.perf_counter()
            read(paths)
            times.append(time.perf_counter() - started)
        found.append(1e3 * min(times))
    return found[0], found[1]


def equals_literal(files: Files, count: int = 4) -> bool:
    """Say whether samples are those of the literal transform, and print how near.

    Resizing, cropping and mirroring are compared with the literal ones of the whole image; distorted colours
    with the literal distortion of the same crop, since it magnifies a level of difference.
    """
    full = train_transform(CONFIG, IGNORED, MEAN)
    geometry = replace(CONFIG, photometric=False)
    cut = train_transform(geometry, IGNORED, MEAN)
    furthest, labels_equal = [0, 0], True
    for index in range(count):
        image, label = (torch.from_numpy(part.copy()) for part in read_arrays(files[index]))
        seed = augmentation_seed(0, index, 0)
        (crop, names), (sample, sample_names) = cut(image, label, seed), full(image, label, seed)
        wanted, wanted_names = literal_sample(image, label, draw(seed), geometry, IGNORED, MEAN)
        colours = literal_distortion(crop, draw(seed).colour.tolist())
        labels_equal &= torch.equal(names, wanted_names) and torch.equal(sample_names, wanted_names)
        for part, (one, two) in enumerate(((crop, wanted), (sample, colours))):
            furthest[part] = max(furthest[part], int((one.int() - two.int()).abs().max()))
    equal = labels_equal and furthest[0] <= TOLERANCE[0] and furthest[1] <= TOLERANCE[1]
    print(
        f"{count} samples {'equal' if equal else 'DIFFER FROM'} the literal transform: labels "
        f"{'equal' if labels_equal else 'differ'}, pixels within {furthest[0]} of 255 levels, distorted ones "
        f"within {furthest[1]}"
    )
    return equal


def main() -> int:
    """Make files, compare, time, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--samples", type=int, default=96, help="per round (default: 96)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transform = train_transform(CONFIG, IGNORED, MEAN)
    with tempfile.TemporaryDirectory(prefix="sarx-data-") as folder:
        files = write_all(Path(folder), options.files)
        mib = sum(paths[0].stat().st_size for paths in files) / len(files) / 2**20
        print(
            f"{len(files)} PNG files of 2048x1024, {mib:.1f} MiB each; {WORKERS} workers, batches of {BATCH}"
        )
        equal = equals_literal(files)
        pillow, arrays = decode_ms(files)
        print(
            f"decoding an image and its labels: {pillow:.1f} ms to Pillow images, {arrays:.1f} ms to arrays"
        )
        print(f"{'':16s} {'':8s} {'images/s':>10s} {'median':>10s} {'core ms/image':>12s}")
        decoded: dict[str, Dataset[Any]] = {
            "sarx": Samples([read_arrays(paths) for paths in files], None, transform),
            "plain": Samples([read_pillow(paths) for paths in files], None, plain),
        }
        without = report("without decode", take_turns(decoded, options.samples, options.rounds))
        encoded: dict[str, Dataset[Any]] = {
            "sarx": Samples(files, read_arrays, transform),
            "plain": Samples(files, read_pillow, plain),
        }
        with_decode = report("with decode", take_turns(encoded, options.samples, options.rounds))
    print()
    passed = [
        equal,
        at_least("data_without_decode", without, LEAST_WITHOUT_DECODE),
        at_least("data_with_decode", with_decode, LEAST_WITH_DECODE),
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
