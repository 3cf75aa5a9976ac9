"""A message that is held stays hidden, and whatever SQS answers, the deploy goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.leases import Leases
from lookout.model import Message
from lookout.sqs import LONGEST_VISIBILITY, Queue
from lookout.vitals import Vitals
from testbed.scripted_sqs import ScriptedSqs, after, answer_after, cut, fail_entries, refuse
from testbed.sqs import LocalSqs
from tests.integration.queues import connected, receive, said, until

pytestmark = pytest.mark.queue

RECEIVE_AND_DELETE = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"], "Resource": "*"}
    ],
}
DENIED = refuse("AccessDenied", "no", status=403)
AWAY = refuse("InternalError", "sorry", status=500)


class Clock:
    """A clock that stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the leases. That of the server and of the event loop goes on."""
    clock = Clock()
    monkeypatch.setattr("lookout.leases.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@asynccontextmanager
async def renewing(queue: Queue, **options: Any) -> AsyncIterator[Leases]:
    """Leases that are renewed; quick where a retry is asked for."""
    leases = Leases(queue, **{"slots": 32, "retry_pause": 0.05, **options})
    renewals = asyncio.create_task(leases.run())
    yield leases
    assert not renewals.done(), "the loop ended by itself"
    renewals.cancel()
    await asyncio.gather(renewals, return_exceptions=True)


async def hold(
    queue: Queue, leases: Leases, deploy_time: float = 0, *, received: float | None = None
) -> Message:
    """Receive a message and hold it, as the receiver does."""
    [message] = await receive(queue, visibility=leases.visibility)
    leases.hold(message, time.monotonic() if received is None else received)
    leases.resize(message, deploy_time)
    return message


class Scenario:
    """Leases on a server whose messages were all sent by this."""

    def __init__(self, server: ScriptedSqs, queue: Queue, leases: Leases, clock: Clock) -> None:
        self.server = server
        self.queue = queue
        self.leases = leases
        self.clock = clock

    async def hold(self, deploy_time: float = 0) -> Message:
        self.server.send("body")
        return await hold(self.queue, self.leases, deploy_time, received=self.clock.now)

    async def at(self, now: float) -> None:
        """Set the clock, and wait until all that is due then was renewed."""
        self.clock.now = now
        witness = await self.hold()
        await until(lambda: self.server.changes(witness.id))
        await until(lambda: self.server.hidden_for(witness.id) > 0)
        await self.leases.done(witness)


@pytest.fixture
async def scenario(scripted: ScriptedSqs, scripted_queue: Queue, clock: Clock) -> AsyncIterator[Scenario]:
    async with renewing(scripted_queue) as leases:
        yield Scenario(scripted, scripted_queue, leases, clock)


@pytest.mark.parametrize(
    ("deploy_time", "seconds"), [(1, 60), (20, 60), (21, 62), (30, 75), (100, 180), (28800, 43195)]
)
async def test_the_first_extension_is_made_at_once_and_sized_by_the_deploy_time(
    scenario: Scenario, deploy_time: int, seconds: int
) -> None:
    message = await scenario.hold(deploy_time)
    await until(lambda: scenario.server.changes(message.id))
    assert scenario.server.changes(message.id) == [seconds]
    await until(lambda: scenario.server.hidden_for(message.id) > seconds - 5)


@pytest.mark.parametrize(("deploy_time", "seconds"), [(1, 60), (100, 180)])
async def test_a_lease_is_renewed_when_ten_seconds_are_left(
    scenario: Scenario, deploy_time: int, seconds: int
) -> None:
    message = await scenario.hold(deploy_time)
    await until(lambda: scenario.server.changes(message.id))
    await scenario.at(1000 + seconds - 10.5)
    assert scenario.server.changes(message.id) == [seconds]
    await scenario.at(1000 + seconds - 9.5)
    assert scenario.server.changes(message.id) == [seconds] * 2


async def test_a_short_lease_is_renewed_at_half_of_it(
    scripted: ScriptedSqs, scripted_queue: Queue, clock: Clock
) -> None:
    async with renewing(scripted_queue, floor=8, margin=0) as leases:
        scenario = Scenario(scripted, scripted_queue, leases, clock)
        message = await scenario.hold()
        await until(lambda: scripted.changes(message.id))
        await scenario.at(1003.5)
        assert scripted.changes(message.id) == [8]
        await scenario.at(1004.5)
        assert scripted.changes(message.id) == [8, 8]


async def test_a_held_message_stays_hidden_over_several_renewals_and_is_gone_when_done(
    sqs: LocalSqs, queue: Queue, queue_url: str, logs: list[EventDict]
) -> None:
    sqs.send(queue_url, "body")
    async with renewing(queue, floor=3, margin=0) as leases:
        message = await hold(queue, leases)
        seen_by_others = []
        while len(said(logs, "lease renewed")) < 4:
            seen_by_others += sqs.receive(queue_url)
            await asyncio.sleep(0.05)
        assert seen_by_others == []
        assert await leases.done(message)
    assert sqs.count(queue_url) == (0, 0)
    assert logs[0]["seconds"] == 3


async def test_many_leases_are_renewed_together(scenario: Scenario) -> None:
    messages = [await scenario.hold() for _ in range(12)]
    await until(lambda: all(scenario.server.changes(message.id) for message in messages))
    before = len(scenario.server.calls)
    await scenario.at(1055)
    assert all(scenario.server.changes(message.id) == [60, 60] for message in messages)
    changes = [call for call in scenario.server.calls[before:] if call.action.startswith("Change")]
    assert len(changes) <= 3, "twelve and the witness, ten in a call"


async def test_a_message_that_is_delivered_again_while_held_only_brings_a_newer_handle(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.send("body")
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        await until(lambda: scripted.changes(message.id))
        scripted.show(message.id)
        [again] = await receive(scripted_queue)
        assert again.receipt_handle != message.receipt_handle
        assert not leases.hold(again, time.monotonic())
        assert leases.free == 31
        await until(lambda: len(scripted.changes(message.id)) == 2)
        assert await leases.done(message)
    assert not scripted.has(message.id), "deleted by the newest handle: the old one does nothing"


async def test_who_may_not_extend_is_told_once_and_receives_for_the_longest_deploy(
    sqs: LocalSqs, queue_url: str, logs: list[EventDict]
) -> None:
    for number in range(3):
        sqs.send(queue_url, str(number))
    with sqs.enforce_iam(RECEIVE_AND_DELETE) as environment:
        async with connected(queue_url, environment) as queue, renewing(queue) as leases:
            assert leases.visibility == 60
            first = await hold(queue, leases, deploy_time=100)
            await until(lambda: leases.denied)
            assert leases.visibility == 180
            second = await hold(queue, leases, deploy_time=40)
            assert leases.visibility == 180, "the longest, not the last"
            third = await hold(queue, leases, deploy_time=1000)
            assert leases.visibility == 1530
            for message in (first, second, third):
                assert await leases.done(message)
    assert sqs.count(queue_url) == (0, 0)
    [warning] = [event for event in logs if event["log_level"] == "warning"]
    assert '"sqs:ChangeMessageVisibility"' in warning["statement"]


async def test_who_may_not_extend_does_not_try_again(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    for _ in range(3):
        scripted.send("body")
    scripted.next("ChangeMessageVisibilityBatch", DENIED)
    scripted.next("ChangeMessageVisibility", DENIED, DENIED)
    async with renewing(scripted_queue, floor=1, margin=0) as leases:
        *early, late = await receive(scripted_queue, 3, visibility=1)
        for message in early:
            leases.hold(message, time.monotonic())
        await until(lambda: len(scripted.called("ChangeMessageVisibility")) == 2)
        await until(lambda: leases.denied)
        leases.hold(late, time.monotonic())
        await until(lambda: scripted.hidden_for(late.id) < 0)
        await leases.release_all([*early, late])
        assert leases.free == 32
    assert [scripted.changes(message.id) for message in early] == [[1, 1]] * 2, "together, then alone"
    assert scripted.changes(late.id) == []
    assert len(said(logs, "not allowed to extend")) == 1


async def test_failed_entries_of_a_batch_are_tried_again(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("first")
    scripted.send("second")
    scripted.next("ChangeMessageVisibilityBatch", fail_entries("InternalError", "sorry", count=1))
    async with renewing(scripted_queue) as leases:
        messages = await receive(scripted_queue, 2)
        for message in messages:
            leases.hold(message, time.monotonic())
            leases.resize(message, 100)
        for message in messages:
            await until(lambda message=message: scripted.hidden_for(message.id) > 170)  # type: ignore[misc]
    asked = [scripted.changes(message.id) for message in messages]
    assert asked == [[180, 180], [180]]
    [warning] = said(logs, "lease not renewed; trying again")
    assert warning["message_id"] == messages[0].id
    assert 0 < warning["seconds_left"] <= 60


async def test_a_handle_that_is_gone_is_told_once_and_left_alone(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("lost")
    scripted.send("held")
    async with renewing(scripted_queue, floor=1, margin=0) as leases:
        lost, held = await hold(scripted_queue, leases), await hold(scripted_queue, leases)
        scripted.lose(lost.id)
        await until(lambda: said(logs, "lease lost"))
        asked = len(scripted.changes(lost.id))
        renewed = len(scripted.changes(held.id))
        await until(lambda: len(scripted.changes(held.id)) >= renewed + 3)
        assert len(scripted.changes(lost.id)) == asked
        assert leases.holds(lost), "its deploy goes on"
    assert [event["message_id"] for event in said(logs, "lease lost")] == [lost.id]


async def test_a_lost_lease_begins_anew_when_its_message_comes_back(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("body")
    scripted.next("ChangeMessageVisibility", refuse("MessageNotInflight"))
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases, deploy_time=100)
        await until(lambda: said(logs, "lease lost"))
        scripted.show(message.id)
        [again] = await receive(scripted_queue)
        assert not leases.hold(again, time.monotonic())
        await until(lambda: scripted.hidden_for(message.id) > 170)


async def test_a_lease_whose_time_is_over_before_a_renewal_works_is_lost(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("body")
    scripted.next("ChangeMessageVisibility", *[AWAY] * 1000)
    async with renewing(scripted_queue, floor=1, margin=0) as leases:
        message = await hold(scripted_queue, leases)
        await until(lambda: said(logs, "lease lost"))
        assert len(scripted.changes(message.id)) > 2, "tried again until then"
        assert leases.holds(message)


async def test_a_message_is_never_asked_to_be_hidden_for_more_than_twelve_hours_in_all(
    scenario: Scenario, logs: list[EventDict]
) -> None:
    message = await scenario.hold(deploy_time=10000)
    begun, until_when = scenario.clock.now, [0.0]
    await until(lambda: scenario.server.changes(message.id))
    while not said(logs, "message held for twelve hours"):
        asked = scenario.server.changes(message.id)
        if len(asked) == len(until_when):
            until_when.append(scenario.clock.now - begun + asked[-1])
        assert scenario.clock.now < begun + LONGEST_VISIBILITY
        await scenario.at(begun + until_when[-1] - 9)
    assert until_when == [0, 15030, 30051, LONGEST_VISIBILITY - 5]
    asked = scenario.server.changes(message.id)
    await scenario.at(begun + LONGEST_VISIBILITY + 100)
    assert scenario.server.changes(message.id) == asked
    assert len(said(logs, "message held for twelve hours")) == 1
    assert scenario.leases.holds(message), "its deploy goes on"


async def test_twelve_hours_that_are_over_already_are_told_once(
    scenario: Scenario, logs: list[EventDict]
) -> None:
    scenario.server.send("body")
    long_ago = scenario.clock.now - LONGEST_VISIBILITY - 1
    message = await hold(scenario.queue, scenario.leases, received=long_ago)
    await until(lambda: said(logs, "message held for twelve hours"))
    await scenario.at(2000)
    assert scenario.server.changes(message.id) == []
    assert len(said(logs, "message held for twelve hours")) == 1


async def test_a_release_asks_for_no_more_than_twelve_hours_either(scenario: Scenario) -> None:
    message = await scenario.hold()
    await until(lambda: scenario.server.changes(message.id))
    scenario.clock.now += LONGEST_VISIBILITY - 100
    await scenario.leases.release(message, after=900)
    assert scenario.server.changes(message.id) == [60, 95]


@pytest.mark.parametrize("count", [1, 12])
async def test_what_is_released_is_visible_at_once(
    sqs: LocalSqs, queue: Queue, queue_url: str, count: int
) -> None:
    for number in range(count):
        sqs.send(queue_url, str(number))
    async with renewing(queue) as leases:
        messages = [await hold(queue, leases) for _ in range(count)]
        assert sqs.count(queue_url) == (0, count)
        await leases.release_all(messages)
        assert leases.free == 32
    assert sqs.count(queue_url) == (count, 0)


async def test_what_is_released_for_later_is_visible_then(scenario: Scenario) -> None:
    message = await scenario.hold()
    await scenario.leases.release(message, after=22.5)
    assert 21 < scenario.server.hidden_for(message.id) <= 23


async def test_a_renewal_under_way_does_not_undo_a_release(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("body")
    go = asyncio.Event()
    scripted.next("ChangeMessageVisibility", after(go))
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        await until(lambda: scripted.changes(message.id) == [60])
        releasing = asyncio.create_task(leases.release(message, after=5))
        await asyncio.wait({releasing}, timeout=0.2)
        go.set()
        await releasing
    assert scripted.hidden_for(message.id) <= 5
    assert scripted.changes(message.id) == [60, 5]


async def test_a_delete_that_overtakes_a_renewal_is_no_lost_lease(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("body")
    renew, answer = asyncio.Event(), asyncio.Event()
    scripted.next("ChangeMessageVisibility", after(renew))
    scripted.next("DeleteMessage", answer_after(answer))
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        await until(lambda: scripted.changes(message.id))
        deleting = asyncio.create_task(leases.done(message))
        await until(lambda: not scripted.has(message.id))
        renew.set()
        scripted.send("another")
        witness = await hold(scripted_queue, leases)
        await until(lambda: scripted.changes(witness.id))
        answer.set()
        assert await deleting
    assert [event for event in logs if event["log_level"] == "warning"] == []


@pytest.mark.parametrize("fault", [AWAY, cut], ids=["error", "cut"])
async def test_a_release_that_fails_is_tried_again(
    scripted: ScriptedSqs, scripted_queue: Queue, fault: Any, logs: list[EventDict]
) -> None:
    for _ in range(2):
        scripted.send("body")
    async with renewing(scripted_queue) as leases:
        messages = [await hold(scripted_queue, leases) for _ in range(2)]
        await until(lambda: all(scripted.changes(message.id) for message in messages))
        scripted.next("ChangeMessageVisibilityBatch", fault)
        await leases.release_all(messages)
        assert leases.free == 32
    assert all(scripted.hidden_for(message.id) <= 0 for message in messages)
    assert said(logs, "message not released") == []


async def test_a_release_that_fails_for_good_is_told_and_frees_its_slot(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("body")
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        await until(lambda: scripted.changes(message.id))
        scripted.next("ChangeMessageVisibility", AWAY, AWAY)
        await leases.release(message)
        assert leases.free == 32
    [warning] = said(logs, "message not released; it comes back when its lease ends")
    assert warning["message_id"] == message.id


async def test_a_delete_is_tried_four_times(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("body")
    scripted.next("DeleteMessage", AWAY, cut, AWAY)
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        assert await leases.done(message)
        assert leases.free == 32
    assert len(scripted.called("DeleteMessage")) == 4
    assert not scripted.has(message.id)
    assert said(logs, "message not deleted") == []


async def test_a_delete_that_fails_four_times_is_told_and_frees_its_slot(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    scripted.send("body")
    scripted.next("DeleteMessage", *[AWAY] * 4)
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        assert not await leases.done(message)
        assert leases.free == 32
    assert len(scripted.called("DeleteMessage")) == 4
    assert scripted.has(message.id)
    assert len(said(logs, "message not deleted; it comes back and will be deleted then")) == 1


async def test_a_delete_goes_on_with_the_handle_that_came_in_meanwhile(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    scripted.send("body")
    go = asyncio.Event()
    scripted.next("DeleteMessage", after(go, AWAY))
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        deleting = asyncio.create_task(leases.done(message))
        await until(lambda: scripted.called("DeleteMessage"))
        scripted.show(message.id)
        [again] = await receive(scripted_queue)
        assert not leases.hold(again, time.monotonic())
        go.set()
        assert await deleting
    assert not scripted.has(message.id)


@pytest.mark.parametrize("ending", ["done", "release"])
async def test_what_is_delivered_again_while_it_is_settled_is_settled_with_its_newer_handle_too(
    scripted: ScriptedSqs, scripted_queue: Queue, ending: str
) -> None:
    scripted.send("body")
    answer = asyncio.Event()
    async with renewing(scripted_queue) as leases:
        message = await hold(scripted_queue, leases)
        await until(lambda: scripted.changes(message.id))
        scripted.next("DeleteMessage", after(answer))
        scripted.next("ChangeMessageVisibility", answer_after(answer))
        step = leases.done(message) if ending == "done" else leases.release(message, after=5)
        settling = asyncio.ensure_future(step)
        await until(
            lambda: scripted.called("DeleteMessage") or 0 < scripted.hidden_for(message.id) <= 5,
        )
        scripted.show(message.id)
        [again] = await receive(scripted_queue)
        assert not leases.hold(again, time.monotonic())
        answer.set()
        await settling
        assert leases.free == 32
    assert scripted.hidden_for(message.id) <= 5 if ending == "release" else not scripted.has(message.id)


async def test_a_message_that_is_being_settled_is_not_renewed(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    for _ in range(2):
        scripted.send("body")
    go = asyncio.Event()
    scripted.next("DeleteMessage", after(go))
    async with renewing(scripted_queue, floor=1, margin=0) as leases:
        settled, held = await hold(scripted_queue, leases), await hold(scripted_queue, leases)
        deleting = asyncio.create_task(leases.done(settled))
        await until(lambda: scripted.called("DeleteMessage"))
        asked, renewed = len(scripted.changes(settled.id)), len(scripted.changes(held.id))
        await until(lambda: len(scripted.changes(held.id)) >= renewed + 3)
        assert len(scripted.changes(settled.id)) == asked
        go.set()
        await deleting


async def test_a_slot_is_waited_for_until_a_message_is_settled(
    scripted: ScriptedSqs, scripted_queue: Queue
) -> None:
    for _ in range(2):
        scripted.send("body")
    async with renewing(scripted_queue, slots=2) as leases:
        first, _ = await hold(scripted_queue, leases), await hold(scripted_queue, leases)
        assert leases.free == 0
        waiting = asyncio.create_task(leases.wait_for_slot())
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        await leases.done(first)
        await asyncio.wait_for(waiting, 5)
        assert leases.free == 1


# What of it is an illness


async def fail_renewals(scenario: Scenario, step: Any = AWAY) -> Message:
    """Hold a message of which no renewal is answered well."""
    scenario.server.next("ChangeMessageVisibility", *[step] * 100)
    message = await scenario.hold()
    await until(lambda: scenario.server.changes(message.id))
    return message


def let_renew(scenario: Scenario) -> None:
    scenario.server._scripts["ChangeMessageVisibility"].clear()


async def well_again(scenario: Scenario) -> None:
    """Let time pass until no lease is overdue; a call that was under way may have put the next one off."""

    def is_well() -> bool:
        scenario.clock.now += 1
        return not scenario.leases.overdue()

    await until(is_well)


async def test_a_lease_that_is_renewed_in_time_is_never_overdue(scenario: Scenario) -> None:
    assert scenario.leases.overdue() == ""
    message = await scenario.hold()
    assert scenario.leases.in_flight == 1
    await until(lambda: scenario.server.hidden_for(message.id) > 50)
    for now in (1049.0, 1051.0, 1101.0):
        await scenario.at(now)
        assert scenario.leases.overdue() == ""


async def test_a_lease_is_overdue_when_half_of_the_time_for_its_renewal_is_over(
    scenario: Scenario, logs: list[EventDict]
) -> None:
    await fail_renewals(scenario)
    await until(lambda: said(logs, "lease not renewed"))
    scenario.clock.now = 1029
    assert scenario.leases.overdue() == ""
    scenario.clock.now = 1031
    assert "InternalError: sorry" in scenario.leases.overdue()
    let_renew(scenario)
    await until(lambda: not scenario.leases.overdue())
    assert scenario.leases._last_error == "", "which says nothing of a later illness"


async def test_so_it_is_where_no_renewal_is_even_tried(scripted: ScriptedSqs, scripted_queue: Queue) -> None:
    scripted.send("body")
    leases = Leases(scripted_queue, slots=1)  # whose loop does not run
    await hold(scripted_queue, leases, received=time.monotonic() - 31)
    assert leases.overdue() == "the lease of a message in flight is not renewed: no answer"


async def test_one_that_was_lost_since_nothing_was_answered_is_an_illness_until_renewals_work(
    scenario: Scenario, logs: list[EventDict]
) -> None:
    message = await fail_renewals(scenario)
    scenario.clock.now = 1061
    await until(lambda: said(logs, "lease lost"))
    asked = len(scenario.server.changes(message.id))
    scenario.clock.now = 1063
    await until(lambda: len(scenario.server.changes(message.id)) > asked)
    assert "not renewed" in scenario.leases.overdue()
    scenario.clock.now = 5000
    let_renew(scenario)
    await well_again(scenario)
    assert scenario.server.hidden_for(message.id) > 50, "it is held again, and nothing else was needed"
    await scenario.at(scenario.clock.now + 51)
    renewed = [event for event in said(logs, "lease renewed") if event["message_id"] == message.id]
    assert len(renewed) == 2
    assert len(said(logs, "lease lost")) == 1


async def test_so_it_is_where_the_first_answer_is_that_others_have_it_now(
    scenario: Scenario, logs: list[EventDict]
) -> None:
    message = await fail_renewals(scenario)
    scenario.clock.now = 1061
    await until(lambda: said(logs, "lease lost"))
    let_renew(scenario)
    scenario.server.next("ChangeMessageVisibility", refuse("ReceiptHandleIsInvalid"))
    await well_again(scenario)
    asked = len(scenario.server.changes(message.id))
    await scenario.at(5000)
    assert len(scenario.server.changes(message.id)) == asked
    assert len(said(logs, "lease lost")) == 1


async def test_so_it_is_where_twelve_hours_are_over_before_an_answer(
    scenario: Scenario, logs: list[EventDict]
) -> None:
    await fail_renewals(scenario)
    scenario.clock.now = 1061
    await until(lambda: said(logs, "lease lost"))
    scenario.clock.now = 1000 + LONGEST_VISIBILITY
    await until(lambda: said(logs, "message held for twelve hours"))
    assert scenario.leases.overdue() == ""


async def test_or_until_it_is_settled(scenario: Scenario, logs: list[EventDict]) -> None:
    message = await fail_renewals(scenario)
    scenario.clock.now = 1061
    await until(lambda: said(logs, "lease lost"))
    assert scenario.leases.overdue()
    await scenario.leases.done(message)
    assert scenario.leases.overdue() == ""


async def test_what_is_being_settled_is_not_overdue(scenario: Scenario) -> None:
    message = await fail_renewals(scenario)
    scenario.clock.now = 1055
    assert scenario.leases.overdue()
    scenario.leases.end_renewals(message)
    assert scenario.leases.overdue() == ""


@pytest.mark.parametrize(
    ("fault", "told"), [(DENIED, "not allowed"), (refuse("ReceiptHandleIsInvalid"), "lease lost")]
)
async def test_a_permission_that_is_missing_and_a_handle_that_is_gone_are_no_illness(
    scenario: Scenario, logs: list[EventDict], fault: Any, told: str
) -> None:
    await fail_renewals(scenario, fault)
    await until(lambda: said(logs, told))
    for now in (1031, 1061, 5000):
        scenario.clock.now = now
        assert scenario.leases.overdue() == ""


async def test_twelve_hours_that_are_over_are_no_illness(scenario: Scenario, logs: list[EventDict]) -> None:
    scenario.server.send("body")
    await hold(scenario.queue, scenario.leases, received=scenario.clock.now - LONGEST_VISIBILITY - 1)
    await until(lambda: said(logs, "message held for twelve hours"))
    assert scenario.leases.overdue() == ""


async def test_every_renewal_that_fails_is_counted(
    scripted: ScriptedSqs, scripted_queue: Queue, logs: list[EventDict]
) -> None:
    vitals = Vitals()
    scripted.send("body")
    scripted.next("ChangeMessageVisibility", AWAY, AWAY)
    async with renewing(scripted_queue, floor=2, margin=0, vitals=vitals) as leases:
        message = await hold(scripted_queue, leases)
        await until(lambda: said(logs, "lease renewed"))
        assert vitals.lease_errors == 2
        await leases.done(message)
