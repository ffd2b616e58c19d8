"""The same words at every place: ``python -m sarx.cluster.words up | job | status | logs | ... | down``.

``up PLACE`` makes a place the current one, which the other words use unless ``--place`` names another.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sarx.cluster.local import PORTS, answers
from sarx.cluster.on_ray import connect, on_ray
from sarx.cluster.place import STATE, Batch, Place, Site, check_commands, check_filled, open_site
from sarx.cluster.places import PLACES
from sarx.cluster.tokens import OWN
from sarx.cluster.tunnel import LAST_LINES, running, tunnel
from sarx.config.errors import UserError, exit_code, nearest

CURRENT = STATE / "place"
TENSORBOARD_PORT = 6006
BOARD_S = 120.0
WATCH_S = 5.0
USAGE = f"""\
python -m sarx.cluster.words WORD ...      (just WORD ...)

  up [PLACE] [...]                     start a cluster; places: {", ".join(PLACES)} (default: local)
  job [--place P] STUDY.yaml [...]     submit a study, or attach to its job; [...]: those of sarx.tune
  job [--place P] --stop STUDY.yaml    stop it safely; the job again goes on
  status [--place P] [...]             how studies stand, and the jobs; [...]: those of sarx.status
  logs [--place P] [STUDY]             follow the log of the newest job, of the study of that name
  tensorboard [--place P] [STUDY]      TensorBoard where the results are, through a tunnel
  dashboard [--place P]                Ray's dashboard, through a tunnel
  down [PLACE]                         end what `up` started, and nothing else
"""


def current() -> str:
    """Return the place that ``up`` was last given, else one where something of ours may be up."""
    if CURRENT.exists():
        return CURRENT.read_text(encoding="utf-8").strip()
    return next(iter(others("")), "local")


def others(name: str) -> list[str]:
    """Return the places, but this one, where something of ours may be up, as far as is recorded."""
    return [other for other, place in PLACES.items() if other != name and place.is_up(open_site(other))]


def find(name: str | None) -> tuple[Place, Site]:
    """Return a place and how it stands here; None: the current one.

    Raises:
        UserError: If there is no such place, or its files have marked values.
    """
    name = name or current()
    if name not in PLACES:
        raise UserError(f"no place is called {name!r}; {nearest(name, PLACES)}", where="PLACE")
    place, site = PLACES[name], open_site(name, PLACES[name].keys)
    check_filled([site.folder / file for file in place.files], f"clusters/{name}")
    return place, site


def batch_of(place: Place) -> Batch:
    """Return how studies are submitted at a place."""
    return place.batch or on_ray(place)


def up(arguments: list[str]) -> int:
    """Refuse unfilled files, start the cluster, and make the place the current one."""
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "local"
    place, site = find(name)
    check_commands(place.needs, f"just up {name}")
    place.up(site, arguments)
    CURRENT.parent.mkdir(exist_ok=True)
    CURRENT.write_text(name + "\n", encoding="utf-8")
    if name != "local":
        print("next: just job search_spaces/ablation.yaml")
    return 0


def down(arguments: list[str]) -> int:
    """End what ``up`` started at a place."""
    name = arguments.pop(0) if arguments else None
    nothing_more(arguments)
    place, site = find(name)
    code = place.down(site)
    if code == 0 and current() == site.name:
        CURRENT.unlink(missing_ok=True)
    say_others(site)
    return code


def say_others(site: Site) -> None:
    """Say where else something of ours may be up."""
    for other in others(site.name):
        print(f"{other}: a cluster of ours may be up too; just status --place {other}, just down {other}")


def job(arguments: list[str]) -> int:
    """Submit a study, or attach to its running job, and follow the log; or stop it."""
    name, stop = own_options(arguments, "--stop")
    if not arguments:
        raise UserError("give the study: just job search_spaces/ablation.yaml", where="just job")
    study = Path(arguments.pop(0))
    place, site = find(name)
    if stop:
        nothing_more(arguments)
        return batch_of(place).stop(site, study)
    try:
        return batch_of(place).run(site, study, arguments)
    except KeyboardInterrupt:
        print(f"\nleft; a study that was submitted goes on. Attach again: just job {study}")
        print(f"stop it: just job --stop {study}")
        return 130


def logs(arguments: list[str]) -> int:
    """Follow the log of a study's newest job, or of the newest of all."""
    name, _ = own_options(arguments)
    study = arguments.pop(0) if arguments else None
    nothing_more(arguments)
    place, site = find(name)
    return batch_of(place).logs(site, study)


def status(arguments: list[str]) -> int:
    """Say how studies stand where their results are, and which jobs the cluster has."""
    name, _ = own_options(arguments)
    place, site = find(name)
    words = ["-m", "sarx.status", *arguments]
    if site.name != "local":
        check_seen(place, site)
    if site.name != "local" and "--storage" not in arguments:
        words += ["--storage", site.storage]
    command = (
        [sys.executable, *words] if place.here(site) else place.shell(site, shlex.join(["python", *words]))
    )
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if site.name != "local" or CURRENT.exists():
        print("\n".join(batch_of(place).list(site)))
    say_others(site)
    return code


def tensorboard(arguments: list[str]) -> int:
    """Run TensorBoard where the results are, on loopback, and open a tunnel to it until Ctrl-C."""
    name, _ = own_options(arguments)
    study = arguments.pop(0) if arguments and not arguments[0].startswith("-") else ""
    place, site = find(name)
    if "://" in site.storage:  # on an object store; seen from here
        command = [sys.executable, "-m", "sarx.boards", *filter(None, [study]), *arguments]
        there = {**os.environ, "SARX_STORAGE": site.storage}
        return subprocess.run(command, env=there, check=False).returncode
    folder, options = f"{site.storage}/{study}", ["--host", "127.0.0.1"]
    check_seen(place, site)
    check_there(place, site, study)
    if place.here(site):
        program = str(Path(sys.executable).with_name("tensorboard"))
        return subprocess.run([program, *options, "--logdir", folder, *arguments], check=False).returncode
    port = random.choice(PORTS)
    options += ["--port", str(port), "--logdir", folder, *arguments]
    with (
        tempfile.TemporaryFile() as said,  # it would name a port of that host
        running(place.shell(site, lasting(["tensorboard", *options])), said, stdin=subprocess.PIPE) as server,
        tunnel(lambda local: place.forward(site, local, port), TENSORBOARD_PORT) as local,
    ):
        deadline = time.monotonic() + BOARD_S
        while server.poll() is None and not answers(local, "/"):
            if time.monotonic() > deadline:
                raise UserError(f"TensorBoard does not answer within {BOARD_S:.0f} s", where=site.name)
            time.sleep(0.5)
        if server.poll() is None:
            print(f"TensorBoard: http://127.0.0.1:{local} until Ctrl-C", flush=True)
        code = server.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
        raise UserError(f"TensorBoard ended with {code}: {' / '.join(lines)}", where=site.name)


def lasting(command: list[str]) -> str:
    """Return what runs a command in a shell until its standard input ends, as with the connection."""
    served = f"exec 3<&0; {shlex.join(command)} & served=$!; cat <&3 > /dev/null & wait -n; code=$?"
    return f"{served}; kill $served 2> /dev/null; exit $code"


def check_seen(place: Place, site: Site) -> None:
    """Refuse results that are looked for on this machine and are not there.

    Raises:
        UserError: Saying why they are looked for here.
    """
    if "://" in site.storage or not place.here(site) or Path(site.storage).is_dir():
        return
    if site.name == "local":
        raise UserError("no results yet", where=site.storage)
    raise UserError(
        f"no folder of this machine, where it is looked for while no cluster of {site.name} is up",
        where=site.storage,
    )


def check_there(place: Place, site: Site, study: str) -> None:
    """Refuse a study that the results do not have.

    Raises:
        UserError: Naming the nearest one.
    """
    if not study:
        return
    ls = ["ls", "-1", "--", site.storage]
    asked = ls if place.here(site) else place.shell(site, shlex.join(ls))
    done = subprocess.run(asked, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    known = done.stdout.split()
    if done.returncode == 0 and study not in known:
        raise UserError(f"no study {study!r} in {site.storage}; {nearest(study, known)}", where="STUDY")


def dashboard(arguments: list[str]) -> int:
    """Open a tunnel to the dashboard of the cluster until Ctrl-C."""
    name, _ = own_options(arguments)
    nothing_more(arguments)
    place, site = find(name)
    if place.batch:
        raise UserError(
            f"studies of {site.name} have a cluster each; just logs follows one", where="just dashboard"
        )
    with connect(place, site) as address:
        port = int(address.rpartition(":")[2])
        if not answers(port):
            raise UserError(
                f"nothing answers; if the cluster is gone: just down {site.name}, then just up {site.name}",
                where=f"just dashboard ({site.name})",
            )
        token = site.token if place.own_token else OWN.expanduser()
        print(f"dashboard: {address} until Ctrl-C; it asks for the token: {token}", flush=True)
        while answers(port) or answers(port):  # it may be busy once
            time.sleep(WATCH_S)
        raise UserError("it does not answer any more", where=f"just dashboard ({site.name})")


def own_options(arguments: list[str], flag: str | None = None) -> tuple[str | None, bool]:
    """Take ``--place NAME`` and a flag off the front; the rest is for others.

    Raises:
        UserError: If --place has no name.
    """
    name, flagged = None, False
    while arguments and arguments[0] in ("--place", flag):
        if arguments.pop(0) == flag:
            flagged = True
        elif not arguments:
            raise UserError("--place needs a name", where="PLACE")
        else:
            name = arguments.pop(0)
    return name, flagged


def nothing_more(arguments: list[str]) -> None:
    """Refuse what is left over.

    Raises:
        UserError: Naming it.
    """
    if arguments:
        raise UserError(
            f"unknown: {' '.join(arguments)}; see python -m sarx.cluster.words --help", where="just"
        )


WORDS: dict[str, Callable[[list[str]], int]] = {
    "up": up,
    "down": down,
    "job": job,
    "logs": logs,
    "status": status,
    "tensorboard": tensorboard,
    "dashboard": dashboard,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a word and return its exit code."""
    word, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if word in ("-h", "--help") or rest[:1] in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if word not in WORDS:
        print(f"error: no word {word!r}; {nearest(word, WORDS)}", file=sys.stderr)
        return 2
    return exit_code(partial(WORDS[word], rest), "left")


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # close what was opened
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda given, _: sys.exit(128 + given))
    sys.exit(main())
