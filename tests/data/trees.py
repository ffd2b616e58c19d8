"""Small random data sets in the exact layout of the real ones: every maker fills ``root`` and returns it.

Images are noise with a few blocks; label maps are blocks of the real ids, ignored ones included. ``sizes``
are (height, width), taken in turn. Equal arguments give equal files.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Sizes = Sequence[tuple[int, int]]

CITYSCAPES_IDS = tuple(range(34))
CITYSCAPES_TRAIN_IDS = (*range(19), 255)
ADE20K_IDS = tuple(range(151))
PASCAL_IDS = tuple(range(60))
PASCAL_DETAIL_IDS = (*range(1, 460),)
COCO_TRAIN_IDS = (*range(171), 255)
COCO_IDS = (
    *(i for i in range(182) if i not in (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)),
    255,
)
"""Values of the official pixel maps: category id - 1; 255 is unlabelled."""
COCO_10K_IDS = tuple(range(172))


def blocks(rng: np.random.Generator, ids: Iterable[int], size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Return a label map of 4x4 blocks, (H, W)."""
    height, width = size
    small = rng.choice(np.array(list(ids), np.uint16), ((height + 3) // 4, (width + 3) // 4))
    return small.repeat(4, 0).repeat(4, 1)[:height, :width]


def write_image(path: Path, rng: np.random.Generator, size: tuple[int, int]) -> None:
    """Write a noisy RGB image in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = blocks(rng, range(40, 216), size)[:, :, None] + rng.integers(-20, 21, (*size, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_mask(path: Path, labels: npt.NDArray[Any], palette: bool = False) -> None:
    """Write a label map as a grey image, or as one with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if palette:
        image.putpalette(list(np.random.default_rng(9).integers(0, 256, 768)))
    image.save(path)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a list file, one entry per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def make_cityscapes(
    root: Path,
    train: Mapping[str, int] = {"aachen": 3, "bochum": 2, "zurich": 1},
    val: Mapping[str, int] = {"frankfurt": 2, "munster": 1},
    sizes: Sizes = ((16, 32),),
    seed: int = 0,
    kind: str = "labelIds",
) -> Path:
    """Make leftImg8bit/ and gtFine/; ``train`` and ``val`` map cities to numbers of images.

    ``kind``: labelIds (0..33, as published) or labelTrainIds (0..18, 255 = ignored).
    """
    rng = np.random.default_rng(seed)
    ids = CITYSCAPES_IDS if kind == "labelIds" else CITYSCAPES_TRAIN_IDS
    made = 0
    for split, cities in (("train", train), ("val", val)):
        for city, count in cities.items():
            for frame in range(count):
                stem, size = f"{city}_{frame:06d}_000019", sizes[made % len(sizes)]
                write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", rng, size)
                mask = root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png"
                write_mask(mask, blocks(rng, ids, size))
                mask.with_name(f"{stem}_gtFine_polygons.json").write_text("{}")
                mask.with_name(f"{stem}_gtFine_color.png").write_bytes(b"not read")
                made += 1
    return root


def make_ade20k(root: Path, train: int = 24, val: int = 3, sizes: Sizes = ((20, 28),), seed: int = 0) -> Path:
    """Make images/ and annotations/ of ADEChallengeData2016: ids 0 (ignored) to 150."""
    rng = np.random.default_rng(seed)
    for folder, short, count in (("training", "train", train), ("validation", "val", val)):
        for i in range(1, count + 1):
            stem, size = f"ADE_{short}_{i:08d}", sizes[i % len(sizes)]
            write_image(root / "images" / folder / f"{stem}.jpg", rng, size)
            write_mask(root / "annotations" / folder / f"{stem}.png", blocks(rng, ADE20K_IDS, size))
    return root


def make_pascal_context(
    root: Path,
    train: int = 24,
    val: int = 3,
    sizes: Sizes = ((20, 28),),
    seed: int = 0,
    kind: str = "png",
) -> Path:
    """Make the folder VOC2010 with 60 classes, 0 = background.

    ``kind``: png (as the common toolbox converts it: SegmentationClassContext/ and
    ImageSets/SegmentationContext/) or mat (as published: trainval/*.mat of 459 ids, ImageSets/Main/).
    """
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    lists = root / "ImageSets" / ("SegmentationContext" if kind == "png" else "Main")
    for name, year, count in (("train", 2008, train), ("val", 2010, val)):
        stems = [f"{year}_{i:06d}" for i in range(1, count + 1)]
        for i, stem in enumerate(stems):
            size = sizes[i % len(sizes)]
            write_image(root / "JPEGImages" / f"{stem}.jpg", rng, size)
            if kind == "png":
                write_mask(
                    root / "SegmentationClassContext" / f"{stem}.png",
                    blocks(rng, PASCAL_IDS, size),
                    palette=i % 2 == 0,
                )
            else:
                (root / "trainval").mkdir(exist_ok=True)
                labels = blocks(rng, PASCAL_DETAIL_IDS, size)
                savemat(root / "trainval" / f"{stem}.mat", {"LabelMap": labels}, do_compression=True)
        write_lines(lists / f"{name}.txt", stems)
    return root


def make_coco_stuff(
    root: Path,
    train: int = 24,
    val: int = 3,
    sizes: Sizes = ((20, 28),),
    seed: int = 0,
    kind: str = "labelTrainIds",
) -> Path:
    """Make images/ and annotations/ of the 164k set.

    ``kind``: labelTrainIds (0..170, 255 = ignored) or pixelmaps (as published: category id - 1).
    """
    rng = np.random.default_rng(seed)
    ids, ending = (COCO_TRAIN_IDS, "_labelTrainIds") if kind == "labelTrainIds" else (COCO_IDS, "")
    for split, count in (("train2017", train), ("val2017", val)):
        for i in range(1, count + 1):
            stem, size = f"{9 * i:012d}", sizes[i % len(sizes)]
            write_image(root / "images" / split / f"{stem}.jpg", rng, size)
            write_mask(root / "annotations" / split / f"{stem}{ending}.png", blocks(rng, ids, size))
    return root


def make_coco_stuff_10k(
    root: Path,
    train: int = 24,
    test: int = 3,
    sizes: Sizes = ((20, 28),),
    seed: int = 0,
    kind: str = "labelTrainIds",
) -> Path:
    """Make imageLists/, images/ and annotations/ of the 10k set.

    ``kind``: labelTrainIds (as the common toolbox converts it: 0 = ignored, 1..171, in train2014/ and
    test2014/) or mat (as published: ``S`` of category ids, 0 = unlabelled).
    """
    from scipy.io import savemat

    rng = np.random.default_rng(seed)
    for split, first, count in (("train", 1, train), ("test", 5001, test)):
        stems = [f"COCO_train2014_{i:012d}" for i in range(first, first + count)]
        for i, stem in enumerate(stems):
            size = sizes[i % len(sizes)]
            if kind == "labelTrainIds":
                write_image(root / "images" / f"{split}2014" / f"{stem}.jpg", rng, size)
                mask = root / "annotations" / f"{split}2014" / f"{stem}_labelTrainIds.png"
                write_mask(mask, blocks(rng, COCO_10K_IDS, size))
            else:
                write_image(root / "images" / f"{stem}.jpg", rng, size)
                (root / "annotations").mkdir(exist_ok=True)
                labels = blocks(rng, (0, *(c + 1 for c in COCO_IDS[:-1])), size)
                savemat(root / "annotations" / f"{stem}.mat", {"S": labels})
        write_lines(root / "imageLists" / f"{split}.txt", stems)
    return root


def make_folder(
    root: Path,
    classes: Sequence[str] = ("road", "tree", "sky"),
    train: int = 24,
    val: int = 3,
    sizes: Sizes = ((20, 28),),
    seed: int = 0,
    kind: str = "folders",
) -> Path:
    """Make a data set of one's own: classes.txt and masks of class indices, 255 = ignored.

    ``kind``: folders ({train,val}/{images,masks}/) or lists (images/, masks/, train.txt, val.txt).
    """
    rng = np.random.default_rng(seed)
    write_lines(root / "classes.txt", classes)
    ids = (*range(len(classes)), 255)
    for split, count in (("train", train), ("val", val)):
        stems = [f"{split}_{i:03d}" for i in range(count)]
        place = root / split if kind == "folders" else root
        for i, stem in enumerate(stems):
            size = sizes[i % len(sizes)]
            write_image(place / "images" / f"{stem}.jpg", rng, size)
            write_mask(place / "masks" / f"{stem}.png", blocks(rng, ids, size))
        if kind == "lists":
            write_lines(root / f"{split}.txt", stems)
    return root


def make_cifar(
    root: Path,
    classes: int = 10,
    per_class: int = 20,
    test_per_class: int = 2,
    seed: int = 0,
    archive: bool = True,
) -> Path:
    """Make cifar-10-python.tar.gz or cifar-100-python.tar.gz, or the folder that it unpacks to."""
    rng = np.random.default_rng(seed)
    key = "labels" if classes == 10 else "fine_labels"
    folder = "cifar-10-batches-py" if classes == 10 else "cifar-100-python"
    names = [f"data_batch_{i}" for i in range(1, 6)] if classes == 10 else ["train"]
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    parts = list(zip(names, np.array_split(labels, len(names)), strict=True))
    parts.append(("test" if classes == 100 else "test_batch", np.repeat(np.arange(classes), test_per_class)))
    files = {}
    for name, part in parts:
        data = rng.integers(0, 256, (len(part), 3072), dtype=np.uint8)
        data[:, 0] = part  # the class can be read off the first pixel
        record = {"data": data, key: part.tolist(), "batch_label": name}
        files[name] = pickle.dumps(record, protocol=2)
    root.mkdir(parents=True, exist_ok=True)
    if not archive:
        (root / folder).mkdir()
        for name, content in files.items():
            (root / folder / name).write_bytes(content)
        return root
    with tarfile.open(root / f"cifar-{classes}-python.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return root


def make_image_lists(
    root: Path,
    counts: Mapping[str, Sequence[int]],
    sizes: Sizes = ((24, 32),),
    seed: int = 0,
) -> Path:
    """Make images by class and one list file per key of ``counts``: ``path label`` per line.

    ``counts`` maps the name of a list file to the number of its images of class 0, 1, ...
    """
    rng = np.random.default_rng(seed)
    for file, numbers in counts.items():
        lines = []
        for label, count in enumerate(numbers):
            for i in range(count):
                name = f"{Path(file).stem}/c{label:04d}/{i:05d}.jpg"
                write_image(root / name, rng, sizes[i % len(sizes)])
                lines.append(f"{name} {label}")
        write_lines(root / file, lines)
    return root
