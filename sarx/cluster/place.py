"""A place where a Ray cluster can be had: its files below ``clusters/NAME``, its settings, its state.

The files have marked values; what is left unfilled is refused with file and line before anything starts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sarx.config.errors import UserError, nearest
from sarx.study.urls import is_url, parse_url

CLUSTERS = Path("clusters")
STATE = Path(".sarx")
SETTINGS = "place.env"
DASHBOARD_PORT = 8265
MARKED = re.compile(r"\bFILL_IN_[A-Z0-9_]+")

Kind = dict[str, float]
"""Resources of one kind of node by Ray's names, and ``nodes``, how many of it there can be."""


@dataclass(frozen=True)
class Site:
    """One place as it stands in this checkout.

    Args:
        name: Of the place.
        folder: Its files, ``clusters/NAME``.
        state: What we record and the token, ``.sarx/NAME``; never in git.
        settings: Of ``place.env``.
    """

    name: str
    folder: Path
    state: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def token(self) -> Path:
        """File of the token, in a folder of its own that can be copied as a whole."""
        return self.state / "token" / "auth_token"

    @property
    def storage(self) -> str:
        """Where the results lie, as every node of the place sees it; without settings, as this machine does.

        Raises:
            UserError: If it is neither an absolute folder nor the URL of a bucket.
        """
        if not self.settings:
            given = os.environ.get("SARX_STORAGE") or "results"
            return given if "://" in given else str(Path(given).expanduser().resolve())
        given = self.settings.get("SARX_STORAGE", "")
        where: dict[str, str] = {"where": str(self.folder / SETTINGS), "key": "SARX_STORAGE"}
        if not (given.startswith("/") or is_url(given)):
            raise UserError(
                f"{given!r} is neither an absolute folder nor a URL; give one that all nodes see", **where
            )
        try:
            return str(parse_url(given)) if is_url(given) else given
        except UserError as error:
            raise UserError(error.message, **where) from None


@dataclass(frozen=True)
class Batch:
    """Studies in a queue that is not Ray's.

    Args:
        run: Submit a study's file with arguments, or attach to its job, and follow the log; the exit code.
        logs: Follow the log of the newest job of a study's name, or of all; the exit code.
        list: A line for each job.
        stop: Stop the job of a study's file; the exit code.
    """

    run: Callable[[Site, Path, list[str]], int]
    logs: Callable[[Site, str | None], int]
    list: Callable[[Site], list[str]]
    stop: Callable[[Site, Path], int]


@dataclass(frozen=True)
class Place:
    """What the words mean at one place.

    Args:
        keys: Settings of its ``place.env``; none: it has no such file.
        files: Files with marked values, below its folder.
        needs: From a command that must be here to where it comes from.
        up: Starts the cluster, given further arguments.
        down: Ends it; the exit code.
        shell: From a shell command to what runs it where the results are.
        forward: From a loopback port here and one there to what keeps a tunnel open; empty: one port.
        port: Port of the job server, on the head's loopback.
        here: Whether the results are on this machine now, so that nothing elsewhere needs to be asked.
        is_up: Whether something of ours may be up there, as far as is recorded.
        own_token: Whether the token is the place's own, and not the user's in ~/.ray.
        uploads: Whether a job takes the working folder along; else it runs in it.
        grows: The kinds of nodes that the cluster starts when they are asked for, each with how many at most;
            None: it starts none.
        batch: How studies are submitted where that is not Ray's to do.
    """

    up: Callable[[Site, list[str]], None]
    down: Callable[[Site], int]
    shell: Callable[[Site, str], list[str]]
    forward: Callable[[Site, int, int], list[str]]
    port: Callable[[Site], int] = lambda _: DASHBOARD_PORT
    keys: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    here: Callable[[Site], bool] = lambda site: "://" in site.storage
    own_token: bool = True
    uploads: bool = True
    is_up: Callable[[Site], bool] = lambda _: False
    grows: Callable[[Site], list[Kind]] | None = None
    batch: Batch | None = None


def open_site(name: str, keys: Sequence[str] = (), *, root: Path | None = None) -> Site:
    """Return a place with its settings.

    Args:
        name: Of the place.
        keys: Settings that ``place.env`` must have; an empty tuple: it has no such file.
        root: The checkout; None: the working folder.

    Raises:
        UserError: If the file or a setting is missing, unknown, or no line of KEY=VALUE.
    """
    root = root or Path.cwd()
    folder = root / CLUSTERS / name
    settings = read_settings(folder / SETTINGS, keys) if keys else {}
    return Site(name, folder, root / STATE / name, settings)


def read_settings(path: Path, keys: Sequence[str]) -> dict[str, str]:
    """Return the settings of a file of KEY=VALUE lines, which a shell can read too.

    Raises:
        UserError: With file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror}); give the command in a checkout", where=str(path)
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error})", where=str(path)) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text, where = line.strip(), f"{path}:{number}"
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if not equals or re.search(r"\s", key):
            raise UserError("no line of KEY=VALUE", where=where)
        if key not in keys:
            raise UserError(f"no setting of this place; {nearest(key, keys)}", where=where, key=key)
        found[key] = unquoted(value, where)
    for key in keys:
        if key not in found:
            raise UserError("is missing", where=str(path), key=key)
    return found


def unquoted(value: str, where: str) -> str:
    """Return a value without the quotes that a shell would take away.

    Raises:
        UserError: If a shell would read another value.
    """
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
        forbidden = "'\"$`\\"
    else:
        forbidden = "'\"$`\\ ;&|<>()#"
    if any(sign in value for sign in forbidden):
        raise UserError(
            f"{value!r} would mean something else to a shell; write plain text, quoted with ' where it has "
            "spaces",
            where=where,
        )
    return value


def unfilled(paths: Sequence[Path]) -> list[str]:
    """Return ``file:line: MARK`` of each marked value that nobody has filled in.

    Raises:
        UserError: If a file cannot be read.
    """
    found = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot be read ({error}); give the command in a checkout", where=shown(path)
            ) from None
        for number, line in enumerate(lines, 1):
            found += [f"{shown(path)}:{number}: {mark}" for mark in MARKED.findall(line)]
    return found


def check_filled(paths: Sequence[Path], where: str) -> None:
    """Refuse files with marked values.

    Raises:
        UserError: Naming each by file and line.
    """
    if lines := unfilled(paths):
        raise UserError("; ".join(["fill in the marked values first", *lines]), where=where)


def check_commands(needed: Mapping[str, str], where: str) -> None:
    """Refuse to go on without the commands that a place needs.

    Args:
        needed: From a command to where it comes from.
        where: For the message.

    Raises:
        UserError: Naming the first that is missing.
    """
    for command, origin in needed.items():
        if shutil.which(command) is None:
            raise UserError(f"the command {command} is not here; {origin}", where=where)


def shown(path: Path) -> str:
    """Return a path as a user would write it here."""
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)
