"""Images of every usual mode are read as RGB, label maps as indices; others are refused with the reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sarx.config.errors import UserError
from sarx.data.image_files import describe_values, make_table, read_image, read_mask, read_size

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
INDICES = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
TABLE = make_table({0: 2, 1: 0, 2: 1, 3: 255})


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr"])
def test_images_are_converted_to_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr") else "x.png")
    image = Image.fromarray(RGB).convert(mode)
    image.save(path)
    read = read_image(path)
    assert read.shape == (3, 5, 7)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, np.array(image.convert("RGB")).transpose(2, 0, 1))


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.mode == "CMYK"
        literal = np.array(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg"), literal)


def test_a_palette_with_transparency_warns_of_nothing(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes(range(256)))
    np.testing.assert_array_equal(
        read_image(tmp_path / "x.png"), np.array(image.convert("RGB")).transpose(2, 0, 1)
    )


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), 700, np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png: has I;16 pixels; save it with 8 bits"):
        read_image(tmp_path / "x.png")


def wanted(stored: np.ndarray) -> list[list[int]]:
    return [[{0: 2, 1: 0, 2: 1, 3: 255}[int(v)] for v in row] for row in stored]


@pytest.mark.parametrize("kind", ["grey", "palette", "palette4", "16 bit", "1 bit"])
def test_label_maps_are_read_as_indices(kind: str, tmp_path: Path) -> None:
    path, stored = tmp_path / "m.png", INDICES
    if kind == "grey":
        Image.fromarray(stored).save(path)
    elif kind.startswith("palette"):
        image = Image.fromarray(stored)
        image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
        image.save(path, bits=4 if kind == "palette4" else 8)
    elif kind == "16 bit":
        Image.fromarray(stored.astype(np.uint16)).save(path)
    else:
        stored = INDICES % 2
        Image.fromarray(stored * np.uint8(255)).convert("1").save(path)
    labels = read_mask(path, TABLE)
    assert labels.dtype == np.uint8
    assert labels.flags.writeable
    assert labels.tolist() == wanted(stored)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_label_maps_of_few_bits_are_not_spread_over_a_byte(bits: int, tmp_path: Path) -> None:
    """PIL writes no such file: 3 x 2 pixels by hand (PNG specification, 11.2 and 7.2)."""
    stored = INDICES[:2, :3] % 2**bits
    packed = [
        int("".join(f"{v:0{bits}b}" for v in row).ljust(-(-3 * bits // 8) * 8, "0"), 2) for row in stored
    ]
    rows = b"".join(b"\0" + value.to_bytes(-(-3 * bits // 8), "big") for value in packed)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", 3, 2, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert read_mask(tmp_path / "m.png", TABLE).tolist() == wanted(stored)


def test_colour_label_maps_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "m.png")
    with pytest.raises(
        UserError, match=r"m\.png: is a colour image \(RGB\); a label map is a grey or palette"
    ):
        read_mask(tmp_path / "m.png", TABLE)


def test_wide_labels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1000]], np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png: holds the label 1000, which is not a byte"):
        read_mask(tmp_path / "m.png", TABLE)


def test_a_table_refuses_what_it_does_not_name() -> None:
    table = make_table({1: 0, 2: 5})
    assert [int(table[v]) for v in (0, 1, 2, 3, 254, 255)] == [254, 0, 5, 254, 254, 255]
    assert make_table({0: 255}, size=300).shape == (300,)


@pytest.mark.parametrize(
    ("values", "text"),
    [([0, 1, 2], "0 to 2"), ([0, 1, 255], "0 to 1 and 255"), ([4], "4"), ([1, 3, 4, 9], "1, 3 to 4 and 9")],
)
def test_ranges_are_written_out(values: list[int], text: str) -> None:
    assert describe_values(np.array(values)) == text


def test_the_size_comes_from_the_header(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[:60])
    assert read_size(tmp_path / "x.png") == (5, 7)
    with pytest.raises(UserError, match=r"x\.png: cannot be read"):
        read_image(tmp_path / "x.png")


def test_an_enormous_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"x\.png: is too large"):
        read_image(tmp_path / "x.png")
