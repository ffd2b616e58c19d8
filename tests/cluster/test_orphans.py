"""Which placement groups are freed: those of this job whose maker is dead, and no others."""

from types import SimpleNamespace

import pytest
import ray

from sarx.cluster import orphans
from sarx.cluster.orphans import messages

JOB, OTHER = bytes([1, 0, 0, 0]), bytes([2, 0, 0, 0])
ME, ALIVE, RESTARTING, DEAD = (bytes([n]) * 12 + JOB for n in (1, 2, 3, 4))
NOBODY = b"\xff" * 16


def group(number, creator, job=JOB, **more):
    table = messages.PlacementGroupTableData(
        placement_group_id=bytes([number]) * 14 + job, creator_actor_id=creator, creator_job_id=job, **more
    )
    return table.SerializeToString()


def actor(name, state):
    return messages.ActorTableData(actor_id=name, state=state).SerializeToString()


@pytest.fixture
def cluster(monkeypatch):
    table = messages.ActorTableData
    found = SimpleNamespace(
        groups=[],
        actors=[
            actor(ME, table.ALIVE),
            actor(ALIVE, table.ALIVE),
            actor(RESTARTING, table.RESTARTING),
            actor(DEAD, table.DEAD),
        ],
        freed=[],
    )
    accessor = SimpleNamespace(
        get_placement_group_table=lambda: found.groups, get_actor_table=lambda job, state: found.actors
    )
    context = SimpleNamespace(get_job_id=JOB.hex, get_actor_id=ME.hex)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(orphans.state, "_connect_and_get_accessor", lambda: accessor)
    monkeypatch.setattr(orphans, "remove_placement_group", lambda g: found.freed.append(g.id.hex()))
    return found


def test_only_groups_of_dead_makers_are_freed(cluster):
    removed = messages.PlacementGroupTableData.REMOVED
    cluster.groups = [
        group(1, ALIVE),
        group(2, RESTARTING),
        group(3, DEAD),
        group(4, DEAD, job=OTHER),
        group(5, DEAD, is_detached=True),
        group(6, NOBODY),  # made by the driver, as Tune's are
        group(7, DEAD, state=removed),
        group(8, bytes([9]) * 12 + JOB),  # so long dead that Ray has forgotten it
    ]
    wanted = [(bytes([n]) * 14 + JOB).hex() for n in (3, 8)]
    assert orphans.free_orphans() == cluster.freed == wanted


def test_nothing_is_freed_when_the_actors_are_not_all_there(cluster):
    cluster.groups, cluster.actors = [group(1, ALIVE), group(3, DEAD)], []
    assert orphans.free_orphans() == cluster.freed == []
