"""What ``python -m sarx.data.verify`` checks in each kind of data set.

Legend: N = images, C = classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sarx.config.errors import UserError
from sarx.data.cache import cached
from sarx.data.check_report import SHOWN, Report
from sarx.data.cifar_archive import archive_files, read_part
from sarx.data.cifar_lt import CifarLT, tail_counts
from sarx.data.class_list import frequency_thirds, published_images, shot_groups
from sarx.data.dataset import Bytes
from sarx.data.image_files import read_image
from sarx.data.image_lists import ImageLists
from sarx.data.layout import Pair
from sarx.data.mask_counts import each
from sarx.data.segmentation_files import Index, SegmentationFiles, describe_empty

PairJob = tuple[Path, Pair, Callable[[Path], Bytes], int]
"""Root, files, how to read the label map, number of classes."""


def check(source: Any, config: Any, limit: int | None) -> Report:
    """Check the files of a data set.

    Args:
        source: Its entry in ``DATASETS``.
        config: Its options.
        limit: How many images of each split to read, evenly spread; None = all.

    Raises:
        UserError: For options that are wrong, a missing root included, and data sets without files.
    """
    checks: dict[type, Callable[..., None]] = {
        SegmentationFiles: check_segmentation,
        CifarLT: check_cifar,
        ImageLists: check_lists,
    }
    if type(source) not in checks:
        raise UserError(f"data={config.name} is not read from files; there is nothing to check", key="data")
    report = Report()
    try:
        checks[type(source)](source, config, limit, report)
    except UserError as error:
        if error.key is not None:
            raise
        report.problems.append(str(error))
    return report


def check_segmentation(source: SegmentationFiles, config: Any, limit: int | None, report: Report) -> None:
    """Check pairs, sizes, labels and numbers; count pixels and images of every class."""
    index, classes = source.index(config), source.classes(config)
    listing = index.listing
    _compare(report, (len(listing.train), len(listing.test)), source.totals(config))
    held = f"{int(index.held_out.sum())} of the training images are held out (val)"
    report.lines.append(f"{held}, by sarx/data/held_out/{source.rule}.json")
    rows, train = _read_pairs(index, listing.train, limit, len(classes.names), "training", report)
    _, test = _read_pairs(index, listing.test, limit, len(classes.names), "validation", report)
    empty = {"train": not (~index.held_out).any(), "val": not index.held_out.any(), "test": not listing.test}
    report.problems += [describe_empty(source, index, split) for split, none in empty.items() if none]
    if len(rows) and not train.any() and not report.problems:
        report.problems.append(f"{index.root}: no training label map that was read shows a class")
    report.lines += _class_table(classes.names, train, index.held_out[rows], test)
    if limit is None and not report.problems:
        cached(source.counting_key(config), lambda: {"pixels": train}, shelf="counts")
        report.image_counts = np.asarray((train > 0).sum(0, dtype=np.int64))
    counts = published_images(source.shape(config))
    counts = report.image_counts if counts is None else counts
    if counts is None:
        report.lines.append("head, body and tail are known once all label maps are read without a problem")
    else:
        report.lines += _group_lines(frequency_thirds(counts), classes.names)


def _read_pairs(
    index: Index, pairs: tuple[Pair, ...], limit: int | None, num_classes: int, title: str, report: Report
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Read images with their label maps; return which, (n,), and their pixels of each class, (n, C)."""
    rows = _spread(len(pairs), limit)
    counts = np.zeros((len(rows), num_classes), np.int32)
    read_mask = index.listing.read_mask()
    jobs = ((index.root, pairs[row], read_mask, num_classes) for row in rows)
    for place, (problem, counted) in enumerate(each(check_pair, jobs, len(rows), f"{title} images")):
        if problem:
            report.problems.append(problem)
        else:
            counts[place] = counted
    report.lines.append(f"read {len(rows)} of {len(pairs)} {title} images with their label maps")
    return rows, counts


def check_pair(job: PairJob) -> tuple[str, npt.NDArray[np.int32]]:
    """Read one image and its label map; return what is wrong, or '' and the pixels of each class (C,)."""
    root, pair, read_mask, num_classes = job
    try:
        image = read_image(root / pair.image.path)
        labels = read_mask(root / pair.mask.path)
    except UserError as error:
        return str(error), np.zeros(num_classes, np.int32)
    if image.shape[1:] != labels.shape:
        sizes = f"is {labels.shape[1]}x{labels.shape[0]} pixels, its image {image.shape[2]}x{image.shape[1]}"
        return f"{root / pair.mask.path}: {sizes}", np.zeros(num_classes, np.int32)
    return "", np.bincount(labels.reshape(-1), minlength=256)[:num_classes].astype(np.int32)


def check_cifar(source: CifarLT, config: Any, limit: int | None, report: Report) -> None:
    """Check the archive and the numbers of its images; say what the tail leaves."""
    archive = source.archive
    files = archive_files(config.root, archive, source.name)
    if len(files) == 1:
        found = hashlib.md5(files[0].read_bytes(), usedforsecurity=False).hexdigest()
        if found != archive.md5:
            report.problems.append(f"{files[0]}: its MD5 is {found}, published is {archive.md5}")
    labels, test = (read_part(config.root, archive, source.name, part)[1] for part in ("train", "test"))
    _compare(report, (len(labels), len(test)), (50_000, 10_000))
    full = np.bincount(labels, minlength=archive.num_classes)
    if full.min() != full.max():
        report.problems.append(f"classes have {full.min()} to {full.max()} training images, not equally many")
    kept = tail_counts(full, config.imbalance)
    tail = f"{kept.sum()} training images: {kept[0]} to {kept[-1]} per class"
    report.lines.append(f"imbalance {config.imbalance:g} keeps {tail}")
    report.lines += _group_lines(shot_groups(kept), source.describe(config, 0).class_names)


def check_lists(source: ImageLists, config: Any, limit: int | None, report: Report) -> None:
    """Check that listed images are there and can be read, and that no image is in two lists."""
    root = Path(config.root).expanduser()
    keys = [key for key in ("list_train", "list_val", "list_test") if getattr(config, key)]
    lists = {key: source.read(config, key) for key in keys}
    _compare(report, (len(lists["list_train"].images), len(lists["list_test"].images)), source.totals)
    owner: dict[str, str] = {}
    for key, listed in lists.items():
        for image in listed.images:
            if image in owner:
                report.problems.append(f"{image} is in data.{owner[image]} and again in data.{key}")
            owner.setdefault(image, key)
        rows = _spread(len(listed.images), limit)
        jobs = (root / listed.images[row] for row in rows)
        report.problems += filter(None, each(check_image, jobs, len(rows), f"data.{key}"))
        report.lines.append(f"read {len(rows)} of {len(listed.images)} images of data.{key}")
    counts = source.label_counts(config, 0, "all")
    report.lines.append(f"training images per class: {counts.min()} to {counts.max()}")
    report.lines += _group_lines(shot_groups(counts), source.describe(config, 0).class_names)


def check_image(path: Path) -> str:
    """Read one image; return what is wrong, or ''."""
    try:
        read_image(path)
    except UserError as error:
        return str(error)
    return ""


def _spread(total: int, limit: int | None) -> npt.NDArray[np.int64]:
    """Return all rows, or ``limit`` evenly spread ones."""
    if limit is None or limit >= total:
        return np.arange(total)
    return np.unique(np.linspace(0, total - 1, limit).round().astype(np.int64))


def _compare(report: Report, found: tuple[int, int], known: tuple[int, int] | None) -> None:
    report.lines.append(f"found {found[0]} training and {found[1]} test images")
    if known is not None and found != known:
        report.problems.append(
            f"found {found[0]} training and {found[1]} test images, not {known[0]} and {known[1]}"
        )


def _class_table(
    names: Sequence[str],
    train: npt.NDArray[np.int32],
    held: npt.NDArray[np.bool_],
    test: npt.NDArray[np.int32],
) -> list[str]:
    """Write pixels and images of each class, and the classes that a split lacks."""
    pixels = train.sum(0, dtype=np.int64)
    columns = ((train > 0).sum(0), (train[held] > 0).sum(0), (test > 0).sum(0))
    width = max(5, *(len(name) for name in names))
    head = f"{'pixels':>14} {'share':>8} {'images':>8} {'held out':>8} {'test':>8}"
    lines = [f"{'class':<{width}} {head}"]
    share = pixels / max(1, pixels.sum())
    for c, name in enumerate(names):
        images = " ".join(f"{column[c]:>8}" for column in columns)
        lines.append(f"{name:<{width}} {pixels[c]:>14} {share[c]:>8.3%} {images}")
    for title, column in zip(("training", "held-out", "test"), columns, strict=True):
        absent = [name for name, count in zip(names, column, strict=True) if count == 0]
        if absent:
            lines.append(f"no {title} image that was read shows: {_shortened(absent)}")
    return lines


def _group_lines(groups: dict[str, tuple[int, ...]], names: Sequence[str]) -> list[str]:
    return [f"{group}: {_shortened([names[c] for c in members])}" for group, members in groups.items()]


def _shortened(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
