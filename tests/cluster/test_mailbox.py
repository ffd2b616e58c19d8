"""The agreement between a host and the ranks of its session, without Ray: the mailbox on an event loop."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from sarx.cluster.mailbox import ABORT, DIED, ECHO, GO, STALE, STOP, Mailbox


def play(scene, **options):
    """Run a scene, a coroutine function of a mailbox, to its end within 10 s."""

    async def run():
        return await asyncio.wait_for(scene(Mailbox(**options)), 10)

    return asyncio.run(run())


async def joined(box, group="a", world_size=2):
    """Let all ranks of a group join; return their generation."""
    joins = [box.join(group, rank, world_size, 100 + rank, f"node{rank}") for rank in range(world_size)]
    found = await asyncio.gather(*joins)
    assert len(set(found)) == 1
    return found[0]


def epoch(number, done=False):
    return {"result": str(number), "images": [], "done": done}


def failure(answer):
    assert answer["done"] is True
    return json.loads(answer["failure"])


def test_ranks_wait_for_each_other_and_for_a_segment():
    async def scene(box):
        first = asyncio.ensure_future(box.join("a", 0, 2, 1, "n"))
        await asyncio.sleep(0.05)
        assert not first.done()
        assert await box.join("a", 1, 2, 2, "n") == await first == 1
        assert await box.complete()
        waiting = asyncio.ensure_future(box.next(1, 0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert await box.post("work") == 1
        assert await waiting == await box.next(1, 0) == (1, "work")

    play(scene)


def test_rank_0_goes_on_when_the_host_has_recorded_its_result_and_not_before():
    async def scene(box):
        generation = await joined(box)
        await box.post("work")
        await box.next(generation, 0)
        taking = asyncio.ensure_future(box.take(5))
        await asyncio.sleep(0.01)
        delivery = asyncio.ensure_future(box.deliver(generation, 1, epoch(1)))
        assert (await taking)["result"] == "1"
        await asyncio.sleep(0.05)
        assert not delivery.done()
        assert await box.take(0.05) == {}  # wants the next epoch, which takes longer than its patience
        assert await delivery == GO
        late = asyncio.ensure_future(box.deliver(generation, 1, epoch(2)))  # between two looks of the host
        await asyncio.sleep(0.05)
        assert not late.done()
        assert (await box.take(1))["result"] == "2"
        assert not late.done()
        taking = asyncio.ensure_future(box.take(5))
        assert await late == GO
        assert await box.deliver(generation, 1, epoch(3, done=True)) == STOP
        assert (await taking)["done"]

    play(scene)


def test_an_exception_is_agreed_on_by_all_and_its_reason_is_that_of_the_first():
    async def scene(box):
        generation = await joined(box, world_size=3)
        await box.post("work")
        await asyncio.gather(*(box.next(generation, 0) for _ in range(3)))
        first = asyncio.ensure_future(box.report(generation, 1, 2, {"reason": "no luck"}))
        await asyncio.sleep(0.01)
        assert await box.beat(generation, 1, 0) == ABORT
        assert await box.beat(generation, 1, 2) == GO
        others = [
            box.report(generation, 1, rank, {"reason": "closed by peer", ECHO: True}) for rank in (0, 1)
        ]
        assert await asyncio.gather(first, *others) == [True] * 3
        assert failure(await box.take(1)) == {"rank": 2, "reason": "no luck"}
        await box.post("more")
        assert await box.next(generation, 1) == (2, "more")

    play(scene)


def test_a_rank_that_does_not_answer_is_named_and_the_others_start_anew():
    async def scene(box):
        generation = await joined(box)
        await box.post("work")
        await box.next(generation, 0)
        assert await box.report(generation, 1, 0, {"reason": "closed by peer", ECHO: True}) is False
        lost = failure(await box.take(1))
        assert lost == {"lost": [{"rank": 1, "pid": 101, "node": "node1"}], "reason": "it did not answer"}

    play(scene, answer_s=0.1)


def test_a_late_report_of_one_segment_does_not_fail_the_next():
    async def scene(box):
        generation = await joined(box)
        await box.post("work")
        await box.next(generation, 0)
        report = asyncio.ensure_future(box.report(generation, 1, 0, {"reason": "closed by peer", ECHO: True}))
        while "lost" not in failure(answer := await box.take(5)):
            await asyncio.sleep(0.01)
        assert answer["done"]
        await box.post("more")
        assert await report is False
        assert await box.take(0.6) == {}
        assert box.failure is None

    play(scene, answer_s=0.5, silent_s=0.1)


def test_new_processes_fail_the_segment_of_those_before_and_those_are_told_to_go():
    async def scene(box):
        old = await joined(box)
        await box.post("work")
        await box.next(old, 0)
        box.members[0].seen += 5  # rank 1 was heard of last
        new = await joined(box, "b")
        assert new == old + 1
        assert failure(await box.take(1)) == {
            "lost": [{"rank": 1, "pid": 101, "node": "node1"}],
            "reason": DIED,
        }
        assert await box.beat(old, 1, 0) == STALE
        assert await box.next(old, 1) is None
        assert await box.deliver(old, 1, epoch(1)) == STOP
        assert await box.report(old, 1, 0, {"reason": "late"}) is False
        assert await box.join("a", 0, 2, 100, "node0") == 0
        await box.post("more")
        assert await box.next(new, 0) == (2, "more")
        assert await box.take(0.05) == {}

    play(scene)


def test_processes_that_come_before_any_segment_fail_none_and_may_be_fewer():
    async def scene(box):
        await box.post("work")
        assert await box.take(0.05) == {}
        await joined(box)
        generation = await joined(box, "b", world_size=1)
        assert await box.next(generation, 0) == (1, "work")
        assert await box.take(0.05) == {}

    play(scene)


def test_a_rank_without_a_sign_of_life_is_lost():
    async def scene(box):
        generation = await joined(box)
        await box.post("work")
        await box.next(generation, 0)
        began = time.monotonic()
        taking = asyncio.ensure_future(box.take(5))
        while not taking.done():
            await box.beat(generation, 1, 0)
            await asyncio.sleep(0.05)
        assert time.monotonic() - began < 4
        found = failure(await taking)
        assert [entry["rank"] for entry in found["lost"]] == [1]
        assert found["reason"] == "no sign of life for 0.5 s"

    play(scene, silent_s=0.5)


def test_ranks_leave_at_the_end():
    async def scene(box):
        generation = await joined(box)
        waiting = asyncio.ensure_future(box.next(generation, 0))
        await box.end()
        assert await waiting == (0, "")

    play(scene)


@pytest.mark.parametrize("answer", [GO, STALE])
def test_an_address_is_that_of_its_round(answer):
    async def scene(box):
        generation = await joined(box)
        asking = asyncio.ensure_future(box.address(generation, 2))
        await box.publish(generation, 1, ("host", 1))
        await asyncio.sleep(0.02)
        assert not asking.done()
        if answer == GO:
            await box.publish(generation, 2, ("host", 2))
            assert await asking == ("host", 2)
        else:
            await joined(box, "b")
            assert await asking is None

    play(scene)


def test_the_reason_of_one_rank_is_told_though_another_does_not_answer():
    """A file that cannot be read on rank 1 while rank 0 computes alone: no collective throws it out."""

    async def scene(box):
        generation = await joined(box)
        await box.post("a")
        await asyncio.gather(*(box.next(generation, 0) for _ in range(2)))
        assert await box.report(generation, 1, 1, {"reason": "bad file", ECHO: False}) is False
        assert failure(await box.take(1)) == {"rank": 1, "reason": "bad file"}

    play(scene, answer_s=0.1)


def test_the_cause_is_told_and_not_its_echo():
    async def scene(box):
        generation = await joined(box)
        await box.post("a")
        await asyncio.gather(*(box.next(generation, 0) for _ in range(2)))
        echo = asyncio.ensure_future(box.report(generation, 1, 0, {"reason": "another rank", ECHO: True}))
        await asyncio.sleep(0)
        assert await box.report(generation, 1, 1, {"reason": "the cause", ECHO: False})
        assert await echo
        assert failure(await box.take(1)) == {"rank": 1, "reason": "the cause"}

    play(scene)


def test_ranks_that_never_connect_fail_the_segment_that_waits_for_them():
    async def scene(box):
        await box.post("a")
        for group in "abc":
            generation = await joined(box, group)
            assert await box.take(0) == {}
            await asyncio.gather(*(box.apart(generation, rank, "no route") for rank in (0, 1)))
        assert failure(await box.take(1)) == {"rank": 0, "reason": "the workers cannot connect: no route"}

    play(scene)
