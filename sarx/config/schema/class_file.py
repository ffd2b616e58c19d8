"""The file classes.txt of a data set of one's own: one class per line, in the order of the indices.

A line is a name, and after it, if wanted, a colour: ``#rrggbb`` or ``r,g,b``.
"""

from __future__ import annotations

import re
from pathlib import Path

from sarx.config.errors import UserError

FILE = "classes.txt"
COLOUR = re.compile(r"#([0-9a-fA-F]{6})|(\d{1,3}),(\d{1,3}),(\d{1,3})")
MOST = 254
"""Masks are bytes: 254 marks what is wrong, 255 what is ignored."""

Colour = tuple[int, int, int]


def read_class_file(root: str) -> list[tuple[str, Colour | None]]:
    """Return the name and the colour, if it has one, of every class. Spaces in names become ``_``.

    Raises:
        UserError: If there is no such file, or naming the line that is wrong.
    """
    if not root:
        raise UserError("not set; data=folder needs the folder that holds classes.txt", key="data.root")
    path = Path(root).expanduser() / FILE
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}; data=folder needs it: one class name per line, in the order of the indices",
            key="data.root",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None
    classes: dict[str, Colour | None] = {}
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        name, colour = _read_line(line, f"{path}:{number}")
        if name in classes:
            raise UserError(f"the name {name!r} is there twice", where=f"{path}:{number}")
        classes[name] = colour
    if not 2 <= len(classes) <= MOST:
        raise UserError(f"lists {len(classes)} classes; 2 to {MOST} can be told apart", where=str(path))
    return list(classes.items())


def _read_line(line: str, where: str) -> tuple[str, Colour | None]:
    words = line.split()
    found = COLOUR.fullmatch(words[-1]) if len(words) > 1 else None
    name = "_".join(words[:-1] if found else words)
    if not name or "/" in name:
        raise UserError(f"{line!r} is not the name of a class, without a slash", where=where)
    if found is None:
        return name, None
    if found[1]:
        red, green, blue = (int(found[1][i : i + 2], 16) for i in (0, 2, 4))
    else:
        red, green, blue = (int(found[i]) for i in (2, 3, 4))
    if max(red, green, blue) > 255:
        raise UserError(f"the colour {words[-1]} is not three numbers of 0 to 255", where=where)
    return name, (red, green, blue)
