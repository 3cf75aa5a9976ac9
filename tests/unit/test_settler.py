"""What each outcome does to its message."""

import asyncio
import gc
import json
import time
import weakref
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs
from tests.unit.bench import NOTHING, Bench, message

from lookout import dead_letters, leases, settler
from lookout.model import ContainerReport, Nothing, Outcome, Report


@pytest.mark.parametrize(
    "report",
    [
        Report(Outcome.DEPLOYED),
        Report(Outcome.UNCHANGED),
        Report(Outcome.SUPERSEDED),
        Report(Outcome.IGNORED),
        Report(Outcome.FAILED),
        Report(Outcome.ROLLED_BACK),
        Report(Outcome.ROLLED_BACK, transient=True),
        Report(Outcome.ROLLBACK_FAILED),
    ],
)
async def test_what_ended_for_good_is_deleted_and_known_should_it_come_back(report: Report) -> None:
    bench = Bench()
    assert await bench.settle(message(), report) is None
    assert bench.settler.is_settled(message())


@pytest.mark.parametrize(
    "report",
    [Report(Outcome.NOT_HERE), Report(Outcome.INVALID), Report(Outcome.FAILED, transient=True)],
)
async def test_what_may_work_later_is_kept_for_twice_as_long_each_time_up_to_a_quarter_of_an_hour(
    report: Report,
) -> None:
    bench = Bench()
    for full in (30, 60, 120, 240, 480, 900, 900, 900):
        kept = await bench.settle(message(), report)
        assert kept is not None
        assert 0.75 * full <= kept <= full
    assert not bench.settler.is_settled(message())


async def test_messages_that_fail_together_do_not_come_back_together() -> None:
    bench = Bench(backoff_base=800)
    report = Report(Outcome.NOT_HERE)
    assert len({await bench.settle(message(number), report) for number in range(20)}) > 1


async def test_the_tries_of_each_message_count_for_itself() -> None:
    bench = Bench()
    for _ in range(4):
        await bench.settle(message(1), Report(Outcome.NOT_HERE))
    kept = await bench.settle(message(2), Report(Outcome.NOT_HERE))
    assert kept is not None
    assert kept <= 30


async def test_receipts_by_others_do_not_count() -> None:
    often = message()
    often.receive_count = 40
    kept = await Bench().settle(often, Report(Outcome.INVALID))
    assert kept is not None
    assert kept <= 30


async def test_a_report_may_name_its_own_time_which_counts_as_no_try() -> None:
    bench = Bench()
    for _ in range(3):
        assert await bench.settle(message(), Report(Outcome.NOT_HERE, retry_after=2)) == 2
    kept = await bench.settle(message(), Report(Outcome.NOT_HERE))
    assert kept is not None
    assert 22 <= kept <= 30


@pytest.mark.parametrize(("age", "is_kept"), [(0, True), (3590, True), (3601, False), (100000, False)])
async def test_a_deploy_that_goes_on_failing_ends_one_hour_after_its_message_was_sent(
    age: float, is_kept: bool
) -> None:
    kept = await Bench().settle(message(age=age), Report(Outcome.FAILED, transient=True))
    assert (kept is not None) is is_kept


async def test_how_long_a_failing_deploy_is_tried_can_be_set() -> None:
    bench = Bench(retry_for=10)
    report = Report(Outcome.FAILED, transient=True)
    assert await bench.settle(message(1, age=5), report) is not None
    assert await bench.settle(message(2, age=11), report) is None


@pytest.mark.parametrize("outcome", [Outcome.NOT_HERE, Outcome.INVALID])
async def test_what_waits_for_a_container_or_the_redrive_policy_does_not_end(outcome: Outcome) -> None:
    assert await Bench().settle(message(age=1000000), Report(outcome)) is not None


async def test_what_waits_for_another_host_is_told_once() -> None:
    bench = Bench()
    with capture_logs() as logs:
        for number in (1, 1, 2, 1):
            await bench.settle(message(number), Report(Outcome.NOT_HERE, retry_after=2))
    levels = [(event["message_id"], event["log_level"]) for event in logs]
    assert levels == [("m-1", "info"), ("m-1", "debug"), ("m-2", "info"), ("m-1", "debug")]


@pytest.mark.parametrize(
    ("report", "level", "following"),
    [
        (
            Report(Outcome.DEPLOYED, each=(ContainerReport("api", Outcome.DEPLOYED),)),
            "info",
            "the message is deleted",
        ),
        (Report(Outcome.NOT_HERE, "nothing runs it", retry_after=3), "info", "tried again in 3 s"),
        (Report(Outcome.INVALID, "ImageTag is missing"), "error", "tried again in "),
        (Report(Outcome.FAILED, "no such tag"), "error", "the message is deleted"),
        (Report(Outcome.ROLLED_BACK, "it exited"), "error", "the message is deleted"),
        (Report(Outcome.ROLLBACK_FAILED, "start it"), "critical", "the message is deleted"),
    ],
)
async def test_each_ending_is_one_event_that_tells_what_happens_next(
    report: Report, level: str, following: str
) -> None:
    with capture_logs() as logs:
        await Bench().settle(message(), report)
    [event] = logs
    assert (event["event"], event["outcome"]) == (report.outcome, report.outcome)
    assert (event["log_level"], event["message_id"]) == (level, "m-1")
    assert event.get("reason", "") == report.reason
    assert tuple(event.get("containers", ())) == report.containers
    assert event["next"].startswith(following)
    json.dumps(event)


async def test_a_message_that_ended_is_deleted_when_it_comes_back() -> None:
    bench = Bench()
    await bench.settle(message(), Report(Outcome.ROLLED_BACK))
    again = message()
    again.receipt_handle = "newer"
    await bench.settler.settle_again(again)
    assert bench.client.deleted == ["handle-1", "newer"]


# Laid aside


BAD = [
    Report(Outcome.INVALID, "ImageTag is missing"),
    Report(Outcome.FAILED, "no such tag"),
    Report(Outcome.ROLLED_BACK, "it exited with code 3\n\x00é"),
    Report(Outcome.ROLLBACK_FAILED, "start it"),
]


@pytest.mark.parametrize("report", BAD, ids=lambda report: report.outcome)
async def test_what_ended_badly_is_sent_to_the_dead_letter_queue_as_it_came_and_only_then_deleted(
    report: Report,
) -> None:
    bench, one = Bench(aside="dead"), message()
    one.body = '{"ImageName": "caf\u00e9"}'
    assert await bench.settle(one, report) is None
    assert bench.client.calls == ["send", "delete"]
    (sent,) = bench.client.sent
    assert (sent["QueueUrl"], sent["MessageBody"]) == ("dead", one.body)
    told = {name: value["StringValue"] for name, value in sent["MessageAttributes"].items()}
    assert (told["MessageId"], told["Outcome"]) == ("m-1", report.outcome)
    assert told["Reason"].startswith(report.reason[:12])
    assert told["Reason"].isascii()
    assert told["Reason"].isprintable()
    assert not {"MessageGroupId", "MessageDeduplicationId"} & {*sent}


@pytest.mark.parametrize(
    "report",
    [
        *(Report(outcome) for outcome in (Outcome.DEPLOYED, Outcome.UNCHANGED)),
        *(Report(outcome) for outcome in (Outcome.SUPERSEDED, Outcome.IGNORED, Outcome.NOT_HERE)),
        Report(Outcome.FAILED, transient=True),
    ],
    ids=lambda report: report.outcome,
)
async def test_what_ended_well_or_may_work_later_is_not_sent_there(report: Report) -> None:
    bench = Bench(aside="dead")
    await bench.settle(message(), report)
    assert not bench.client.sent


async def test_a_failing_deploy_is_sent_there_when_its_time_is_over() -> None:
    bench = Bench(aside="dead", retry_for=10)
    assert await bench.settle(message(age=11), Report(Outcome.FAILED, transient=True)) is None
    assert len(bench.client.sent) == 1


async def test_to_a_fifo_queue_it_is_sent_in_its_group_and_once() -> None:
    bench, alone, grouped = Bench(aside="dead.fifo"), message(1), message(2)
    grouped.group_id = "api"
    for one in (alone, grouped):
        await bench.settle(one, BAD[0])
    ids = [(sent["MessageGroupId"], sent["MessageDeduplicationId"]) for sent in bench.client.sent]
    assert ids == [("m-1", "m-1"), ("api", "m-2")]


TOO_LONG = ClientError(
    {
        "Error": {
            "Code": "InvalidParameterValue",
            "Message": "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
        }
    },
    "SendMessage",
)


async def test_a_body_that_leaves_no_room_for_the_reason_is_sent_without() -> None:
    bench = Bench(aside="dead")
    bench.client.refused = [TOO_LONG]
    assert await bench.settle(message(), BAD[0]) is None
    assert [sent["MessageAttributes"] for sent in bench.client.sent] == [{}]


async def test_a_body_that_the_queue_does_not_take_at_all_stays_where_it_is() -> None:
    bench = Bench(aside="dead")
    bench.client.refused = [TOO_LONG, TOO_LONG]
    assert await bench.settle(message(), BAD[0]) is not None
    assert (bench.client.sent, bench.client.refused) == ([], [])


async def test_the_reason_is_not_lost_where_the_queue_is_away_for_a_while() -> None:
    bench = Bench(aside="dead")
    bench.client.refused = [OSError("away")] * (dead_letters.TRIES - 1)
    assert await bench.settle(message(), BAD[0]) is None
    [sent] = bench.client.sent
    assert sent["MessageAttributes"].keys() == {"MessageId", "Outcome", "Reason"}


async def test_what_cannot_be_sent_there_stays_on_its_queue_and_is_sent_when_it_comes_back() -> None:
    bench = Bench(aside="dead")
    bench.client.refused = [OSError("away")] * dead_letters.TRIES
    with capture_logs() as logs:
        kept = await bench.settle(message(), Report(Outcome.ROLLED_BACK))
    assert kept is not None
    assert 22 <= kept <= 30
    assert [event["log_level"] for event in logs] == ["error", "error"]
    assert bench.settler.is_settled(message()), "it is not deployed again"
    again = message()
    bench.leases.hold(again, time.monotonic())
    await bench.settler.settle_again(again)
    assert (len(bench.client.sent), bench.client.deleted) == (1, ["handle-1"])


DENIED = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "SendMessage")


async def test_who_may_not_send_there_is_told_the_statement_to_add() -> None:
    bench = Bench(aside="dead")
    bench.client.refused = [DENIED] * dead_letters.TRIES
    with capture_logs() as logs:
        assert await bench.settle(message(), BAD[0]) is not None
    assert json.loads(logs[-1]["statement"])["Action"] == "sqs:SendMessage"


async def test_a_rolled_back_deploy_that_may_not_be_sent_there_ends_all_the_same() -> None:
    """Lookout would forget it with its end, and the next one would stop the service for it again."""
    bench = Bench(aside="dead")
    bench.client.refused = [DENIED] * dead_letters.TRIES
    with capture_logs() as logs:
        assert await bench.settle(message(), Report(Outcome.ROLLED_BACK)) is None
    assert logs[-1]["event"] == "the message is deleted all the same"


async def test_in_a_fifo_queue_what_may_not_be_sent_there_does_not_hold_up_its_group() -> None:
    bench = Bench(aside="dead.fifo", in_order=True)
    bench.client.refused = [DENIED] * dead_letters.TRIES
    assert await bench.settle(message(), Report(Outcome.INVALID)) is None


async def test_what_is_laid_aside_and_comes_back_is_only_deleted() -> None:
    bench, one = Bench(aside="dead"), message()
    bench.client.keeps = [OSError("away")] * leases.DELETE_TRIES
    bench.leases.hold(one, time.monotonic())
    await bench.settler.settle(one, BAD[0], NOTHING)
    assert (len(bench.client.sent), bench.client.deleted) == (1, [])
    bench.leases.hold(one, time.monotonic())
    await bench.settler.settle_again(one)
    assert (len(bench.client.sent), bench.client.deleted) == (1, ["handle-1"])


# Unmatched, and in order


async def test_what_no_container_here_runs_is_deleted_where_the_user_says_so() -> None:
    bench = Bench(aside="dead", keeps_unmatched=False)
    assert await bench.settle(message(1), Report(Outcome.NOT_HERE)) is None
    assert await bench.settle(message(2), Report(Outcome.NOT_HERE, retry_after=2)) == 2, "another HostId"
    assert not bench.client.sent, "each of several hosts gets every message"


@pytest.mark.parametrize("aside", ["", "dead.fifo"])
@pytest.mark.parametrize("outcome", [Outcome.NOT_HERE, Outcome.INVALID])
async def test_in_a_fifo_queue_what_asks_nothing_of_this_host_ends_at_once(
    outcome: Outcome, aside: str
) -> None:
    bench = Bench(aside=aside, in_order=True)
    assert await bench.settle(message(), Report(outcome)) is None
    assert len(bench.client.sent) == bool(aside)


async def test_in_a_fifo_queue_what_may_work_later_and_what_is_for_another_host_is_kept() -> None:
    bench = Bench(aside="dead.fifo", in_order=True)
    assert await bench.settle(message(1), Report(Outcome.FAILED, transient=True)) is not None
    assert await bench.settle(message(2), Report(Outcome.NOT_HERE, retry_after=2)) == 2
    assert not bench.client.sent
    assert await bench.settle(message(3, age=3601), Report(Outcome.NOT_HERE, retry_after=2)) is None
    assert len(bench.client.sent) == 1, "but not for ever"


async def test_in_a_fifo_queue_what_no_other_host_has_taken_is_laid_aside_though_unmatched_is_deleted() -> (
    None
):
    bench = Bench(aside="dead.fifo", in_order=True, keeps_unmatched=False)
    assert await bench.settle(message(age=3601), Report(Outcome.NOT_HERE, retry_after=2)) is None
    assert len(bench.client.sent) == 1


async def test_what_is_remembered_is_bounded_and_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "REMEMBERED", 3)
    bench = Bench()
    for number in range(10):
        await bench.settle(message(number), Report(Outcome.DEPLOYED))
        await bench.settle(message(100 + number), Report(Outcome.NOT_HERE))
    assert [number for number in range(10) if bench.settler.is_settled(message(number))] == [7, 8, 9]
    second = [await bench.settle(message(100 + number), Report(Outcome.NOT_HERE)) for number in (9, 0)]
    assert [kept is not None and kept > 30 for kept in second] == [True, False]


# Told

MANY = 10_000  # more tries than there is time for


def told(bench: Bench) -> list[tuple[str, bool]]:
    """The outcomes that were told, and whether there will be another try."""
    sent = [json.loads(message["MessageBody"]) for message in bench.client.sent]
    return [(result["Outcome"], result["WillRetry"]) for result in sent]


@pytest.mark.parametrize("aside", ["", "dead"])
async def test_the_result_is_sent_before_the_message_is_deleted(aside: str) -> None:
    bench = Bench(results="results", aside=aside)
    assert await bench.settle(message(), Report(Outcome.ROLLED_BACK, "why")) is None
    assert bench.client.calls == ["send", *(["send"] if aside else []), "delete"]
    assert bench.client.sent[0]["QueueUrl"] == "results"


async def test_each_try_that_fails_is_told_and_that_nothing_runs_here_only_once() -> None:
    bench = Bench(results="results", retry_for=10)
    for _ in range(3):
        await bench.settle(message(1), Report(Outcome.FAILED, "why", transient=True))
        await bench.settle(message(2), Report(Outcome.NOT_HERE, "why"))
        await bench.settle(message(3), Report(Outcome.INVALID, "why"))
    await bench.settle(message(1, age=11), Report(Outcome.FAILED, "why", transient=True))
    await bench.settle(message(2), Report(Outcome.DEPLOYED))
    assert sorted(told(bench)) == [
        ("deployed", False),
        ("failed", False),
        *[("failed", True)] * 3,
        ("invalid", False),
        ("not_here", True),
    ]


async def test_for_another_host_only_the_end_is_told() -> None:
    bench = Bench(results="results", in_order=True, retry_for=10)
    report = Report(Outcome.NOT_HERE, "for another HostId", retry_after=2)
    await bench.settle(message(), report)
    assert told(bench) == []
    await bench.settle(message(age=11), report)
    assert told(bench) == [("not_here", False)]


async def test_when_only_the_queue_knows_no_time_is_told() -> None:
    bench = Bench(results="results")
    bench.leases.denied = True
    bench.leases.hold(message(), time.monotonic())
    await bench.settler.settle(message(), Report(Outcome.NOT_HERE), NOTHING)
    [sent] = bench.client.sent
    result = json.loads(sent["MessageBody"])
    assert (result["WillRetry"], "NextAttemptAt" in result) == (True, False)


async def test_what_is_told_already_is_not_told_again_when_the_message_is_only_deleted() -> None:
    bench, one = Bench(results="results"), message()
    bench.client.keeps = [OSError("away")] * leases.DELETE_TRIES
    bench.leases.hold(one, time.monotonic())
    await bench.settler.settle(one, Report(Outcome.DEPLOYED), NOTHING)
    bench.leases.hold(one, time.monotonic())
    await bench.settler.settle_again(one)
    assert bench.client.calls == ["send", "delete"]


async def test_a_result_that_cannot_be_sent_keeps_the_message_and_is_sent_when_it_comes_back() -> None:
    bench, one = Bench(results="results"), message()
    bench.client.refused = [OSError("away")] * MANY
    assert await bench.settle(one, Report(Outcome.DEPLOYED)) is not None
    bench.client.refused.clear()
    bench.leases.hold(one, time.monotonic())
    await bench.settler.settle_again(one)
    assert bench.client.calls == ["send", "delete"]
    assert told(bench) == [("deployed", False)]


@pytest.mark.parametrize(
    "code",
    [
        "AccessDenied",
        "QueueDoesNotExist",
        "InvalidMessageContents",
        "MissingParameter",
        "UnsupportedOperation",
        "KmsDisabled",
        "com.amazonaws.sqs#KmsNotFound",
        "KMS.NotFoundException",
    ],
)
async def test_a_result_that_will_never_be_taken_holds_up_nothing(code: str) -> None:
    bench = Bench(results="results")
    bench.client.refused = [ClientError({"Error": {"Code": code}}, "SendMessage")] * MANY
    with capture_logs() as logs:
        assert await bench.settle(message(), Report(Outcome.DEPLOYED)) is None
    [error] = [event for event in logs if event["log_level"] == "error"]
    assert error["event"] == "result not sent"
    assert ("statement" in error) == (code == "AccessDenied")


async def test_a_stray_result_is_not_told_of() -> None:
    bench = Bench(results="results")
    assert await bench.settle(message(), Report(Outcome.IGNORED), Nothing("stray", is_result=True)) is None
    assert told(bench) == []


@pytest.mark.parametrize("code", ["KmsThrottled", "KMS.ThrottlingException"])
async def test_a_key_that_is_asked_too_often_is_asked_again(code: str) -> None:
    bench = Bench(results="results")
    bench.client.refused = [ClientError({"Error": {"Code": code}}, "SendMessage")]
    assert await bench.settle(message(), Report(Outcome.DEPLOYED)) is None
    assert told(bench) == [("deployed", False)]


@pytest.mark.parametrize(
    ("report", "options"),
    [
        (Report(Outcome.ROLLED_BACK), {}),
        (Report(Outcome.ROLLBACK_FAILED), {}),
        (Report(Outcome.DEPLOYED), {"in_order": True}),
        (Report(Outcome.DEPLOYED), {"retry_for": 0}),
    ],
)
async def test_a_message_that_must_go_or_is_old_goes_without_its_result(
    report: Report, options: dict[str, Any]
) -> None:
    bench = Bench(results="results", aside="dead", **options)
    bench.client.away = "results"
    assert await bench.settle(message(), report) is None
    assert [sent["QueueUrl"] for sent in bench.client.sent] == ["dead"] * (
        report.outcome is not Outcome.DEPLOYED
    )


async def test_what_is_done_is_remembered_without_what_was_said_of_it() -> None:
    bench = Bench(results="results")
    container = ContainerReport("api", Outcome.ROLLED_BACK, log_tail="x" * 8192)
    forgotten = weakref.ref(container)
    await bench.settle(message(), Report(Outcome.ROLLED_BACK, each=(container,)))
    del container
    gc.collect()
    assert forgotten() is None
    assert bench.settler.is_settled(message())


async def test_what_is_settled_beside_stays_hidden_until_its_result_is_sent() -> None:
    bench, one = Bench(results="results", patience=60), message()
    bench.leases.hold(one, time.monotonic())
    bench.client.may_send.clear()
    bench.settler.beside(bench.settler.settle(one, Report(Outcome.SUPERSEDED), NOTHING), one)
    for _ in range(20):
        await asyncio.sleep(0)
    assert [lease.message for lease in bench.leases._active()] == [one]
    bench.client.may_send.set()
    await asyncio.gather(*bench.settler.pending)
    assert bench.client.calls == ["send", "delete"]
