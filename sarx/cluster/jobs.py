"""Studies as jobs of a Ray cluster: submit, attach again, follow the log through lost connections, stop.

A study's jobs are ``sarx-STUDY-1``, ``-2`` and so on; at most one of them runs.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from sarx.cluster import check
from sarx.cluster.resources import ENVIRONMENT
from sarx.config.errors import UserError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
ID = re.compile(r"sarx-(?P<study>[a-z0-9][a-z0-9_-]{0,63})-(?P<number>[1-9]\d*)")
EXCLUDES = [
    "/.git",
    "/.venv",
    "/.sarx",
    "/results",
    "__pycache__",
    ".*_cache",
    "/.hypothesis",
    "/build",
    "*.egg-info",
]
OVER = ("SUCCEEDED", "FAILED", "STOPPED")
PATIENCE_S = 600.0
"""Seconds without a connection after which following is given up; the job is not."""
PAUSE_S = 3.0
Connect = Callable[[], AbstractContextManager[str]]


def study_name(path: Path) -> str:
    """Return the name that a study's file gives it.

    Raises:
        UserError: If the file cannot be read or names no study.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot be read: {' '.join(str(error).split())}", where=str(path)) from None
    name = found.get("study") if isinstance(found, dict) else None
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise UserError(
            f"names no study; python -m sarx.tune {path} --dry-run says what is wrong",
            where=str(path),
            key="study",
        )
    return name


def inside(path: Path, folder: Path) -> str:
    """Return a study's file relative to the folder that goes along with a job.

    Raises:
        UserError: If it lies outside.
    """
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise UserError(
            f"lies outside {folder}, the folder that goes along with the job; copy it there", where=str(path)
        ) from None


def entrypoint(study: str, *arguments: str) -> str:
    """Return the shell command of a job: a look at the cluster, and if nothing needs mending, the study.

    Args:
        study: Its file.
        arguments: Further ones of ``sarx.tune``; those that the look has too are given to both.
    """
    common, _ = check.parser().parse_known_args([study, *arguments])
    words = [study, *(["--set", *common.set] if common.set else [])]
    words += [f"--plugin={name}" for name in common.plugin]
    words += [f"--{key}={value}" for key in ("storage", "address") if (value := getattr(common, key))]
    look = shlex.join(["python", "-m", "sarx.cluster.check", *words])
    return f"{look} && exec {shlex.join(['python', '-m', 'sarx.tune', study, *arguments])}"


def runtime_env(folder: Path | None, storage: str, more: dict[str, str]) -> dict[str, Any]:
    """Return the runtime environment of a job.

    Args:
        folder: What goes along; None: the job runs in the checkout itself.
        storage: Where the results lie; never below the copy that Ray makes of the folder.
        more: Further variables.
    """
    variables = {**ENVIRONMENT, "SARX_STORAGE": storage, **more}
    along: dict[str, Any] = {"working_dir": str(folder), "excludes": EXCLUDES} if folder else {}
    return along | {"env_vars": variables}


def of_study(details: list[Any], study: str) -> list[Any]:
    """Return the jobs of a study, oldest first."""
    found = []
    for job in details:
        match = ID.fullmatch(job.submission_id or "")
        if match and match["study"] == study:
            found.append((int(match["number"]), job))
    return [job for _, job in sorted(found, key=lambda pair: pair[0])]


def state_of(job: Any) -> str:
    """Return the state of a job as a word."""
    return str(getattr(job.status, "value", job.status))


def open_client(address: str) -> Any:
    """Return a client of the job server.

    Raises:
        UserError: If the server turns the token down.
        ConnectionError: If it cannot be reached.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UserError(" ".join(str(error).split()), where=address) from None
    except RuntimeError as error:
        raise ConnectionError(str(error)) from None


def submit(client: Any, study: str, command: str, environment: dict[str, Any]) -> tuple[str, bool]:
    """Submit a study unless a job of it runs; return the job's id and whether it is new."""
    before = of_study(client.list_jobs(), study)
    if before and state_of(before[-1]) not in OVER:
        return str(before[-1].submission_id), False
    number = int(ID.fullmatch(before[-1].submission_id)["number"]) + 1 if before else 1  # type: ignore[index]
    wanted = f"sarx-{study}-{number}"
    try:
        client.submit_job(
            entrypoint=command, submission_id=wanted, runtime_env=environment, metadata={"study": study}
        )
    except RuntimeError as error:
        if "already exists" not in str(error):
            raise UserError(" ".join(str(error).split()), where="just job") from None
        return wanted, False  # another was quicker
    return wanted, True


def show(text: str) -> None:
    """Print a piece of a log."""
    print(text, end="", flush=True)


def follow(connect: Connect, job: str, say: Callable[[str], None] = show) -> int:
    """Print a job's log from its start until the job is over; return its exit code.

    A lost connection is opened again, and the log goes on where it was.

    Args:
        connect: Opens a connection and yields the address of the job server.
        job: Its id.
        say: Takes pieces of the log.

    Raises:
        UserError: If nothing can be reached at first, or for PATIENCE_S later.
    """
    from aiohttp import ClientError

    said, last, reached = 0, time.monotonic(), False

    async def tail(client: Any) -> None:
        nonlocal said, last
        at = 0
        async for piece in client.tail_job_logs(job):
            fresh = piece[max(0, said - at) :]
            at += len(piece)
            if fresh:
                say(fresh)
            said, last = max(said, at), time.monotonic()

    while True:
        try:
            with connect() as address:
                client = open_client(address)
                reached, last = True, time.monotonic()
                asyncio.run(tail(client))
                info = client.get_job_info(job)
            if (state := state_of(info)) in OVER:
                return exit_code_of(state, info)
        except (OSError, RuntimeError, ClientError, UserError) as error:
            if not reached:
                raise UserError(f"the cluster cannot be reached: {error}", where=job) from None
            if time.monotonic() - last > PATIENCE_S:
                raise UserError(f"lost: {error}; attach again with the same command", where=job) from None
        time.sleep(PAUSE_S)


def exit_code_of(state: str, info: Any) -> int:
    """Return the exit code of a job that is over: that of its driver, 130 if it was stopped."""
    if state == "SUCCEEDED":
        return 0
    if state == "STOPPED":
        return 130
    if info.driver_exit_code is None and info.message:
        show(f"{info.message}\n")
    return int(info.driver_exit_code or 1)


def newest(details: list[Any], study: str | None) -> str | None:
    """Return the id of the newest job of a study, or of all studies; None: there is none."""
    ours = [job for job in details if ID.fullmatch(job.submission_id or "")]
    if study is not None:
        ours = of_study(ours, study)
    else:
        ours.sort(key=lambda job: job.start_time or 0)
    return str(ours[-1].submission_id) if ours else None


def describe(details: list[Any]) -> list[str]:
    """Return a line for each of our jobs, the newest first."""
    ours = [job for job in details if ID.fullmatch(job.submission_id or "")]
    ours.sort(key=lambda job: job.start_time or 0, reverse=True)
    lines = []
    for job in ours:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime((job.start_time or 0) / 1000))
        lines.append(f"{job.submission_id}: {state_of(job).lower()}, submitted {began}")
    return lines


def stop(client: Any, study: str, wait_s: float = 20.0) -> bool:
    """Stop the running job of a study and wait until it is over; return whether one ran.

    Raises:
        UserError: If it is not over after so many seconds.
    """
    before = of_study(client.list_jobs(), study)
    if not before or state_of(before[-1]) in OVER:
        return False
    job = before[-1].submission_id
    client.stop_job(job)
    deadline = time.monotonic() + wait_s
    while client.get_job_status(job) not in OVER:
        if time.monotonic() > deadline:
            raise UserError(
                f"was asked to stop and is not over after {wait_s:.0f} s; just status says how it stands",
                where=job,
            )
        time.sleep(0.5)
    return True
