"""Studies as Slurm jobs: each has a Ray cluster of its own that begins and ends with it (study.sbatch).

Everything goes through Slurm's own commands in the checkout ``SARX_FOLDER``, on ``LOGIN_HOST`` or here.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from sarx.cluster.jobs import NAME, inside, study_name
from sarx.cluster.place import SETTINGS, Batch, Site
from sarx.config.errors import UserError
from sarx.study.provenance import git_state

KEYS = ("LOGIN_HOST", "SSH_OPTIONS", "SARX_FOLDER", "SARX_STORAGE", "INTERFACE")
FILES = ("place.env", "study.sbatch")
SCRIPT = "clusters/slurm/study.sbatch"
RUNS = ".sarx/slurm"
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")
PAUSE_S = 2.0
LEAVE_S = 60.0
PATIENCE_S = 600.0


def ssh(site: Site, *words: str) -> list[str]:
    """Return an ssh to the login host."""
    return [*SSH, *shlex.split(site.settings["SSH_OPTIONS"]), *words]


def shell(site: Site, command: str) -> list[str]:
    """Return what runs a shell command in the folder, where Slurm's commands are."""
    folder = shlex.quote(site.settings["SARX_FOLDER"])
    inside = f'cd {folder} && PATH="$PWD/.venv/bin:$PATH" exec bash -c {shlex.quote(command)}'
    login = site.settings["LOGIN_HOST"]
    return ssh(site, "--", login, f"exec bash -c {shlex.quote(inside)}") if login else ["bash", "-c", inside]


def forward(site: Site, local: int, remote: int) -> list[str]:
    """Return what keeps a tunnel open to the login host; nothing where this machine is it."""
    login = site.settings["LOGIN_HOST"]
    if not login:
        return []
    return ssh(
        site,
        "-N",
        "-o",
        "ExitOnForwardFailure=yes",
        "-L",
        f"127.0.0.1:{local}:127.0.0.1:{remote}",
        "--",
        login,
    )


def ask(site: Site, command: str, doing: str) -> str:
    """Run a shell command where Slurm is and return what it prints.

    Raises:
        UserError: With what it said, if it fails.
    """
    done = subprocess.run(
        shell(site, command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise UserError(said, where=doing)
    return done.stdout


def up(site: Site, arguments: list[str]) -> None:
    """Look whether studies can be submitted; the clusters themselves come and go with them.

    Raises:
        UserError: If the folder, its environment or Slurm is missing, or Slurm turns the script down.
    """
    if arguments:
        raise UserError(
            f"unknown: {' '.join(arguments)}; study.sbatch says what a job gets", where="just up slurm"
        )
    if not site.settings["SARX_FOLDER"].startswith("/"):
        raise UserError("is no absolute folder", where=str(site.folder / SETTINGS), key="SARX_FOLDER")
    _ = site.storage
    if not site.settings["LOGIN_HOST"] and shutil.which("sbatch") is None:
        raise UserError("the command sbatch is not here; set LOGIN_HOST", where=str(site.folder / SETTINGS))
    ask(site, "test -x .venv/bin/python || { echo no .venv here: just setup >&2; exit 1; }", "SARX_FOLDER")
    ask(site, f"sbatch --test-only {SCRIPT} study.yaml", "sbatch --test-only")
    print("Slurm takes the script; each study gets nodes of its own when it is submitted")


def recorded(site: Site) -> list[str]:
    """Return the ids of the jobs that were submitted from here."""
    path = site.state / "jobs.json"
    found: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def queue(site: Site) -> dict[str, tuple[str, str]]:
    """Return name and state of each job that was submitted in the folder and waits or runs, by id."""
    told = "pwd -P && squeue --me --noheader --format='%i|%T|%j|%Z'"
    folder, *lines = ask(site, told, "squeue").splitlines()
    found: dict[str, tuple[str, str]] = {}
    for line in filter(None, lines):
        number, state, rest = line.strip().split("|", 2)
        name, _, where = rest.partition("|")  # ours have no | in their names
        if where == folder:
            found[number] = (name, state)
    return found


def run(site: Site, study: Path, arguments: list[str]) -> int:
    """Submit a study unless a job of it waits or runs, follow its log, and return its exit code."""
    name = f"sarx-{study_name(study)}"
    waiting = [number for number, (other, _) in queue(site).items() if other == name]
    if waiting:
        number = waiting[-1]
        print(f"attached to Slurm job {number}")
    else:
        path = inside(study, Path.cwd())
        check_same(site, path)
        words = [f"--job-name={name}", SCRIPT, path, *arguments]
        said = ask(site, f"mkdir -p -m 700 {RUNS} && sbatch --parsable {shlex.join(words)}", "sbatch")
        number = said.strip().partition(";")[0]
        site.state.mkdir(parents=True, exist_ok=True)
        (site.state / "jobs.json").write_text(json.dumps([*recorded(site), number]), encoding="utf-8")
        print(f"submitted Slurm job {number}; results in {site.storage}")
    print("Ctrl-C leaves the log, not the study", flush=True)
    return follow(site, number, name)


def check_same(site: Site, path: str) -> None:
    """Refuse a study whose file, commit or storage is another one in the folder where it would run.

    Args:
        site: The place.
        path: The study's file, relative to the checkout.

    Raises:
        UserError: Saying what to do.
    """
    folder = site.settings["SARX_FOLDER"]
    login = site.settings["LOGIN_HOST"] or "this machine"
    digest = f"sha256sum {shlex.quote(path)} 2>/dev/null | cut -c-64"
    asked = f"echo $({digest}); echo $(git rev-parse HEAD 2>/dev/null); . clusters/slurm/place.env; "
    said = ask(site, asked + 'printf "%s\\n" "$SARX_STORAGE"', "the checkout there")
    there, commit, storage = [*said.splitlines(), "", "", ""][:3]
    if there != hashlib.sha256(Path(path).read_bytes()).hexdigest():
        what = "is another file" if there else "is missing"
        raise UserError(f"{what} in {folder} on {login}; copy it there", where=path)
    here = git_state(Path.cwd())["commit"]
    if here and commit and here != commit:
        raise UserError(
            f"{folder} is at commit {commit[:12]}, this checkout at {here[:12]}; bring them to the same",
            where=f"LOGIN_HOST {login}",
        )
    if storage != site.settings["SARX_STORAGE"]:
        raise UserError(
            f"is {storage} in {folder} on {login}; bring them to the same",
            where=str(site.folder / SETTINGS),
            key="SARX_STORAGE",
        )


def follow(site: Site, number: str, name: str) -> int:
    """Print the output of a job until it has left the queue; return its exit code.

    Raises:
        UserError: If nothing could be asked for PATIENCE_S.
    """
    seen, last, said_waiting = 0, time.monotonic(), False
    log, code_file = shlex.quote(f"{RUNS}/{name}-{number}.out"), f"{RUNS}/{number}/exit-code"
    while True:
        ask_it = f"squeue --noheader --jobs={number} --format=%T"
        command = (  # squeue fails for a job that it has forgotten, and when nobody answers it
            f"state=$({ask_it} 2>/dev/null) || {{ said=$({ask_it} 2>&1); "
            "case $said in *'Invalid job id'*) ;; *) echo \"$said\" >&2; exit 1 ;; esac; }; "
            f"echo $state/$(cat {code_file} 2>/dev/null || true); "
            f"tail -c +{seen + 1} {log} 2>/dev/null || true"
        )
        done = subprocess.run(
            shell(site, command), capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode == 0:
            last = time.monotonic()
            first, _, fresh = done.stdout.partition(b"\n")
            state, _, code = first.decode().partition("/")
            sys.stdout.write(fresh.decode(errors="replace"))
            sys.stdout.flush()
            seen += len(fresh)
            if not state:
                return ended(number, code)
            if state == "PENDING" and not said_waiting:
                print("it waits for its nodes", flush=True)
                said_waiting = True
        elif time.monotonic() - last > PATIENCE_S:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise UserError(f"lost: {said}; attach again with the same command", where=f"Slurm job {number}")
        time.sleep(PAUSE_S)


def ended(number: str, code: str) -> int:
    """Return the exit code of a job that is over."""
    if code.isdecimal():
        return int(code)
    print(f"Slurm job {number} is over and left no exit code: it was cancelled, or its nodes were lost")
    return 1


def logs(site: Site, study: str | None) -> int:
    """Follow the output of the newest job of a study, or of all.

    Raises:
        UserError: If there is none.
    """
    if study is not None and not NAME.fullmatch(study):
        raise UserError(f"{study!r} is no name of a study", where="just logs")
    names = ask(site, f"ls -t {RUNS}/sarx-*.out 2>/dev/null || true", "logs").split()
    job = re.compile(rf"sarx-{study or '.*'}-\d+")
    found = [name for name in names if job.fullmatch(Path(name).stem)]
    if not found:
        raise UserError(f"no job of {study or 'any study'} here; submit one with: just job", where="slurm")
    name, _, number = Path(found[0]).stem.rpartition("-")
    return follow(site, number, name)


def listed(site: Site) -> list[str]:
    """Return a line for each of our jobs that waits or runs, or why there is none."""
    try:
        ours = [(number, *entry) for number, entry in queue(site).items() if entry[0].startswith("sarx-")]
    except UserError as error:
        return [f"cluster slurm: {error}"]
    lines = [f"  {number} {name}: {state.lower()}" for number, name, state in ours]
    return [f"cluster slurm: {len(lines)} jobs wait or run", *lines]


def end(site: Site, numbers: list[str]) -> None:
    """Let jobs stop their studies safely, and cancel what is still there a minute later."""
    chosen = " ".join(numbers)
    ask(site, f"scancel --state=PENDING {chosen}", "scancel")
    ask(site, f"scancel --batch --signal=TERM --state=RUNNING {chosen}", "scancel")
    deadline = time.monotonic() + LEAVE_S
    while set(numbers) & set(queue(site)):
        if time.monotonic() > deadline:
            ask(site, f"scancel {chosen}", "scancel")
            return
        time.sleep(PAUSE_S)


def stop(site: Site, study: Path) -> int:
    """Stop the job of a study; return 1 if none waits or runs."""
    name = f"sarx-{study_name(study)}"
    numbers = [number for number, (other, _) in queue(site).items() if other == name]
    if not numbers:
        print(f"{name}: no job of it waits or runs")
        return 1
    end(site, numbers)
    print(f"{name}: stopped; just job {study} goes on")
    return 0


def down(site: Site) -> int:
    """End the jobs that were submitted from here, and no others."""
    there = queue(site) if recorded(site) else {}
    numbers = [number for number in recorded(site) if number in there]
    if numbers:
        end(site, numbers)
    print(f"{len(numbers)} Slurm jobs ended")
    (site.state / "jobs.json").unlink(missing_ok=True)
    return 0


BATCH = Batch(run=run, logs=logs, list=listed, stop=stop)
