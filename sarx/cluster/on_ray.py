"""The words of jobs at places where Ray takes them: submit or attach, follow, list, stop."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sarx.cluster import check, jobs
from sarx.cluster.place import Batch, Place, Site
from sarx.cluster.resources import GROWS
from sarx.cluster.tokens import use_token
from sarx.cluster.tunnel import tunnel
from sarx.config.errors import UserError
from sarx.study.provenance import GIT_STATE, git_state


def on_ray(place: Place) -> Batch:
    """Return the words of a place where Ray takes jobs."""
    return Batch(
        run=partial(run, place),
        logs=partial(logs, place),
        list=partial(listed, place),
        stop=partial(stop, place),
    )


@contextlib.contextmanager
def connect(place: Place, site: Site) -> Iterator[str]:
    """Yield the address of the job server, through a tunnel where it is elsewhere."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if place.own_token:
        use_token(site.token)
    port = place.port(site)
    if not place.forward(site, port, port):
        yield f"http://127.0.0.1:{port}"
        return
    with tunnel(lambda local: place.forward(site, local, port), port) as local:
        yield f"http://127.0.0.1:{local}"


@contextlib.contextmanager
def client(place: Place, site: Site) -> Iterator[Any]:
    """Yield a client of the job server.

    Raises:
        UserError: If it cannot be reached, or does not answer as it should.
    """
    try:
        with connect(place, site) as address:
            yield jobs.open_client(address)
    except (OSError, RuntimeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(
            f"the cluster that just up {site.name} started does not answer ({said}); if it is gone: "
            f"just down {site.name}, then just up {site.name}",
            where=site.name,
        ) from None


def run(place: Place, site: Site, study: Path, arguments: list[str]) -> int:
    """Submit a study unless a job of it runs, follow its log, and return its exit code."""
    name, folder = jobs.study_name(study), Path.cwd()
    path = jobs.inside(study, folder) if place.uploads else str(study.resolve())
    command = jobs.entrypoint(path, *arguments)
    storage = check.parser().parse_known_args([path, *arguments])[0].storage or site.storage
    more = {GROWS: json.dumps(place.grows(site))} if place.grows else {}
    if place.uploads:
        more[GIT_STATE] = json.dumps(git_state(folder))
    environment = jobs.runtime_env(folder if place.uploads else None, site.storage, more)
    with client(place, site) as server:
        job, fresh = jobs.submit(server, name, command, environment)
        other = command if fresh else server.get_job_info(job).entrypoint
    print(f"{'submitted' if fresh else 'attached to'} {job}; results in {storage}", flush=True)
    if other != command:
        print(f"it was submitted as: {other}", flush=True)
    print("Ctrl-C leaves the log, not the study; Ray's dashboard meanwhile: just dashboard", flush=True)
    return jobs.follow(partial(connect, place, site), job)


def logs(place: Place, site: Site, study: str | None) -> int:
    """Follow the log of the newest job of a study, or of all.

    Raises:
        UserError: If there is none.
    """
    with client(place, site) as server:
        details = server.list_jobs()
    job = jobs.newest(details, study)
    if job is None:
        raise UserError(f"no job of {study or 'any study'} here; submit one with: just job", where=site.name)
    return jobs.follow(partial(connect, place, site), job)


def listed(place: Place, site: Site) -> list[str]:
    """Return a line for each job, or why there is none."""
    try:
        with client(place, site) as server:
            found = jobs.describe(server.list_jobs())
    except UserError as error:
        return [f"cluster {error}"]
    return [f"cluster {site.name}: {len(found)} jobs", *(f"  {line}" for line in found)]


def stop(place: Place, site: Site, study: Path) -> int:
    """Stop the running job of a study; return 1 if none runs."""
    name = jobs.study_name(study)
    with client(place, site) as server:
        stopped = jobs.stop(server, name)
    print(f"{name}: stopped; just job {study} goes on" if stopped else f"{name}: no job of it runs")
    return int(not stopped)
