"""What is told of a message can be read again, and nothing else is taken for it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookout.model import ContainerReport, Outcome, Phase
from lookout.result import IN_PROGRESS, LONGEST_ERROR, TYPE, Result

MINIMAL = {"Type": TYPE, "MessageId": "m-1", "Outcome": "deployed"}

texts = st.text(max_size=50)
moments = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
milliseconds = st.integers(0, 10**9).map(lambda count: count / 1000)
containers = st.builds(
    ContainerReport,
    name=texts.filter(bool),
    outcome=st.none() | st.sampled_from(Outcome),
    phase=st.none() | st.sampled_from(Phase),
    old_image=texts,
    new_image=texts,
    downtime=st.none() | milliseconds,
    log_tail=texts,
    reason=texts,
)
results = st.builds(
    Result,
    message_id=texts.filter(bool),
    image_name=texts,
    image_tag=texts,
    host_id=texts,
    outcome=st.sampled_from(Outcome),
    error=texts,
    will_retry=st.booleans(),
    next_attempt_at=st.none() | moments,
    started_at=st.none() | moments,
    finished_at=st.none() | moments,
    containers=st.lists(containers, max_size=3).map(tuple),
    phase=st.none() | st.sampled_from(Phase),
    percent=st.none() | st.integers(0, 100),
    bytes_done=st.none() | st.integers(0, 2**40),
    bytes_total=st.none() | st.integers(0, 2**40),
)


@given(results)
def test_what_is_written_is_read_again_and_is_text_that_every_queue_takes(result: Result) -> None:
    text = result.to_json()
    assert Result.from_json(text) == result
    assert text.isascii()
    assert text.isprintable()


def test_what_is_not_known_is_left_out_and_progress_promises_no_other_try() -> None:
    assert json.loads(Result("m-1", outcome=Outcome.DEPLOYED).to_json()) == MINIMAL | {
        "WillRetry": False,
        "Containers": [],
    }
    progress = json.loads(Result("m-1", phase=Phase.PULLING, percent=0).to_json())
    assert progress == MINIMAL | {
        "Outcome": IN_PROGRESS,
        "Phase": "pulling",
        "Percent": 0,
        "Containers": [],
    }


def test_moments_are_told_in_utc_and_durations_in_milliseconds() -> None:
    began = datetime(2026, 2, 3, 12, tzinfo=timezone(timedelta(hours=2)))
    ended = began + timedelta(seconds=6, milliseconds=410)
    told = json.loads(Result("m-1", outcome=Outcome.DEPLOYED, started_at=began, finished_at=ended).to_json())
    assert told["StartedAt"] == "2026-02-03T10:00:00.000Z"
    assert told["FinishedAt"] == "2026-02-03T10:00:06.410Z"
    assert told["DurationMs"] == 6410


def test_log_tails_can_be_taken_out_and_nothing_else_goes() -> None:
    bad = ContainerReport("api", Outcome.ROLLED_BACK, log_tail="hunter2", reason="why")
    result = Result("m-1", outcome=Outcome.ROLLED_BACK, error="bad", containers=(bad,))
    assert "hunter2" not in result.without_log_tails().to_json()
    told, whole = json.loads(result.without_log_tails().to_json()), json.loads(result.to_json())
    del whole["Containers"][0]["LogTail"]
    assert told == whole


def test_an_endless_error_is_cut() -> None:
    told = json.loads(Result("m-1", outcome=Outcome.FAILED, error="x" * 10**6).to_json())
    assert told["Error"] == "x" * LONGEST_ERROR


def test_a_phase_of_a_later_lookout_is_not_known_and_harms_nothing() -> None:
    told = MINIMAL | {
        "Phase": "teleporting",
        "New": 1,
        "Containers": [{"Name": "a", "Outcome": "in_progress"}],
    }
    assert Result.from_json(json.dumps(told)) == Result(
        "m-1", outcome=Outcome.DEPLOYED, containers=(ContainerReport("a"),)
    )


WRONG: list[Any] = [
    None,
    [],
    "text",
    7,
    {},
    {"Type": TYPE},
    {"Type": TYPE, "MessageId": "m-1"},
    MINIMAL | {"Type": "other"},
    MINIMAL | {"Outcome": "fine"},
    MINIMAL | {"Outcome": []},
    MINIMAL | {"StartedAt": 7},
    MINIMAL | {"StartedAt": "yesterday"},
    MINIMAL | {"Percent": "much"},
    MINIMAL | {"Percent": 1e400},
    MINIMAL | {"Containers": 7},
    MINIMAL | {"Containers": [7]},
    MINIMAL | {"Containers": [{}]},
    MINIMAL | {"Containers": [{"Name": "a", "Outcome": "deployed", "DowntimeMs": {}}]},
]


@pytest.mark.parametrize("told", [*map(json.dumps, WRONG), "", "{", "[" * 100_000, '{"Type": 1e99999}'])
def test_anything_else_is_a_value_error(told: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Result.from_json(told)
