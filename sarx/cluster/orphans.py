"""Frees the places that a lost session still holds.

Ray 2.60 keeps a placement group that an actor made until the actor *and* the job are over. Ray Train has a
cleaner for groups whose controller died, but it asks the dashboard, which need not run, is not told of a
group that a controller makes on a node that was cut off, taken for dead, and is there again for a moment, and
may itself stay for good: sessions do without it.
"""

from __future__ import annotations

from typing import Any

import ray
from ray._private.state import state
from ray._raylet import JobID, PlacementGroupID
from ray.core.generated import gcs_pb2
from ray.util.placement_group import PlacementGroup, remove_placement_group

messages: Any = gcs_pb2  # it makes its classes when it is imported, where mypy does not see them


def free_orphans() -> list[str]:
    """Remove this job's placement groups whose creator is a dead actor; return their ids.

    An actor asks, such as a trial host whose workers find no place. What still runs in the groups is ended by
    Ray. There is no public way to ask who made a group.
    """
    job = JobID.from_hex(ray.get_runtime_context().get_job_id())
    accessor = state._connect_and_get_accessor()
    groups = [  # before the actors: one that makes a group meanwhile is then among them
        messages.PlacementGroupTableData.FromString(entry) for entry in accessor.get_placement_group_table()
    ]
    actors = [messages.ActorTableData.FromString(entry) for entry in accessor.get_actor_table(job, None)]
    alive = {actor.actor_id for actor in actors if actor.state != messages.ActorTableData.DEAD}
    if bytes.fromhex(ray.get_runtime_context().get_actor_id() or "") not in alive:
        return []  # the list of actors lacks the one that asks: it is not to be trusted
    freed = []
    for group in groups:
        made_by_actor = group.creator_actor_id.strip(b"\xff")
        ours = group.creator_job_id == job.binary() and not group.is_detached
        gone = group.state == messages.PlacementGroupTableData.REMOVED
        if ours and made_by_actor and not gone and group.creator_actor_id not in alive:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
            freed.append(group.placement_group_id.hex())
    return freed
