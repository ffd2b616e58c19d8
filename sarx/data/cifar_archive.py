"""CIFAR-10 and CIFAR-100 as published: pickles in a tar archive, or in the folder that it unpacks to.

A pickle is a program. These are read by an unpickler that makes numpy arrays and plain containers and
nothing else.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sarx.config.errors import UserError
from sarx.data.dataset import Array, Bytes

SIDE = 32

BROKEN: tuple[type[Exception], ...] = (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError)
BROKEN += (LookupError, AttributeError, ImportError, zlib.error, tarfile.TarError, UnicodeError)
"""What reading a damaged archive or pickle raises."""


@dataclass(frozen=True)
class Archive:
    """Where the parts of one of the two data sets are.

    Attributes:
        file: Name of the archive.
        folder: Folder in it.
        train: Its files of training images, in order.
        test: Its files of test images.
        key: Name of the list of classes in a file.
        num_classes: C.
        md5: Of the archive as published.
    """

    file: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    key: str
    num_classes: int
    md5: str


CIFAR10 = Archive(
    file="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    key="labels",
    num_classes=10,
    md5="c58f30108f718f92721af3b95e74349a",
)
CIFAR100 = Archive(
    file="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    key="fine_labels",
    num_classes=100,
    md5="eb9058c3a382ffc7106e4002c42a8d85",
)


def archive_files(root: str, archive: Archive, name: str) -> list[Path]:
    """Return the archive, or else the files of the unpacked folder.

    Raises:
        UserError: If neither is there.
    """
    wanted = f"data={name} expects {archive.file} or the folder {archive.folder}/ that it unpacks to"
    source = f"To get the data: https://www.cs.toronto.edu/~kriz/{archive.file}"
    if not root:
        raise UserError(f"not set; {wanted}. {source}", key="data.root")
    path = Path(root).expanduser()
    files = [path / archive.folder / part for part in (*archive.train, *archive.test)]
    missing = [file for file in files if not file.is_file()]
    if not missing:
        return files
    if (path / archive.file).is_file():
        return [path / archive.file]
    if len(missing) < len(files):
        raise UserError(f"there is no such file; {wanted}. {source}", where=str(missing[0]))
    near = path.absolute().parent
    inside = path.name == archive.folder and (path / archive.train[0]).is_file()
    cure = f"; {near} looks right" if inside else f". {source}"
    raise UserError(f"{path} has neither; {wanted}{cure}", key="data.root")


def read_part(root: str, archive: Archive, name: str, part: str) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Read the ``train`` or ``test`` images: uint8 (N, 3, 32, 32), and their classes, (N,).

    Raises:
        UserError: Naming the file and what is wrong with it.
    """
    files = archive_files(root, archive, name)
    wanted = archive.train if part == "train" else archive.test
    images, labels = [], []
    for member in wanted:
        where = str(files[0]) if len(files) == 1 else str(Path(root).expanduser() / archive.folder / member)
        try:
            content = _member(files, archive, member)
            record = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        except BROKEN as error:
            raise UserError(f"{member} cannot be read: {error}", where=where) from None
        found = _check(record, archive, f"{where}: {member}")
        images.append(found[0])
        labels.append(found[1])
    return np.concatenate(images), np.concatenate(labels)


def _member(files: list[Path], archive: Archive, member: str) -> bytes:
    if len(files) > 1:
        return next(file for file in files if file.name == member).read_bytes()
    with tarfile.open(files[0]) as tar:
        stream = tar.extractfile(f"{archive.folder}/{member}")
        if stream is None:
            raise LookupError(f"{archive.folder}/{member} is not a file")
        return stream.read()


def _check(record: Any, archive: Archive, where: str) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return images and classes of one unpickled file."""
    if not isinstance(record, dict) or not {"data", archive.key} <= record.keys():
        raise UserError(f"does not hold 'data' and {archive.key!r}", where=where)
    data: Array = np.asarray(record["data"])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * SIDE * SIDE:
        raise UserError(f"its images are {data.dtype} {data.shape}, not uint8 (N, 3072)", where=where)
    labels = np.asarray(record[archive.key])
    if labels.shape != (len(data),) or labels.dtype.kind not in "iu":
        raise UserError(f"has {len(data)} images and classes of shape {labels.shape}", where=where)
    strange = labels[(labels < 0) | (labels >= archive.num_classes)]
    if strange.size:
        raise UserError(
            f"holds the label {strange[0]}; allowed are 0 to {archive.num_classes - 1}", where=where
        )
    return data.reshape(-1, 3, SIDE, SIDE), labels.astype(np.int64)


class _Unpickler(pickle.Unpickler):
    """Makes what a pickled numpy array is made of; any other name in the pickle is an error."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few allowed makers."""
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array and no container")


def _reconstruct(kind: Any, shape: tuple[int, ...], code: Any) -> Array:
    """Return the empty array that a pickle fills, as numpy's function of this name does."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("it asks for an array of another class")
    return np.ndarray.__new__(np.ndarray, shape, "b")


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 pickled as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")
