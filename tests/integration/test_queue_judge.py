"""The judge of many messages sees what is wrong, and minds nothing that may be."""

import pytest

from lookout.model import Json
from tests.integration.queue_judge import LAID_ASIDE, Judge
from tests.integration.traffic import Wish

OLD, NEW, OTHER, BAD = "sent first", "sent last", "for another image", "garbage"
MESSAGES = {
    OLD: Wish("a", "api", "1"),
    NEW: Wish("b", "api", "2"),
    OTHER: Wish("c", "web", "1"),
    BAD: Wish("{}"),
}
SENT = {OLD: 1, NEW: 2, OTHER: 3, BAD: 4}

Events = list[Json]


def came(message: str) -> Json:
    return {"event": "received", "level": "debug", "message_id": message}


def ended(message: str, outcome: str, then: str = "the message is deleted") -> Json:
    return {"event": outcome, "level": "info", "message_id": message, "outcome": outcome, "next": then}


def said(event: str, level: str = "info") -> Json:
    return {"event": event, "level": level}


IN_ORDER = [*map(came, MESSAGES), ended(OLD, "superseded"), ended(NEW, "deployed")]
REST = [ended(OTHER, "unchanged"), ended(BAD, "invalid", LAID_ASIDE)]
ALL = [*IN_ORDER, *REST]


def judged(*runs: Events, sent: dict[str, int] = SENT) -> list[str]:
    judge = Judge(MESSAGES, runs, sent)
    return [*judge.of_ends(), *judge.of_order(), *judge.of_surprises()]


@pytest.mark.parametrize(
    "runs",
    [
        [ALL],
        [[*map(came, MESSAGES), ended(OLD, "deployed"), ended(NEW, "deployed"), *REST]],
        [[*ALL, said("message ended before; ending it again")]],
        [[ended(NEW, "failed", "tried again in 30 s"), *ALL]],
        [ALL, [ended(NEW, "unchanged")]],
        [ALL, [ended(OLD, "superseded"), ended(BAD, "invalid", LAID_ASIDE)]],
        [[came(NEW), ended(OLD, "superseded")], [ended(OLD, "deployed"), ended(NEW, "deployed"), *REST]],
        [[*ALL, said("stopping"), said("ended in the middle of a swap", "critical")]],
    ],
    ids=[
        *("superseded", "both deployed", "deleted again", "tried again", "found done by the next"),
        *("deleted by the next", "passed over, then deployed by the next", "no time at its end"),
    ],
)
def test_what_may_be_is_no_complaint(runs: list[Events]) -> None:
    assert judged(*runs) == []


@pytest.mark.parametrize(
    ("runs", "complaint"),
    [
        ([[*IN_ORDER, REST[1]]], "for another image ended [[]]"),
        ([[*ALL, ended(NEW, "deployed")]], "sent last ended [['deployed', 'deployed']]"),
        ([[*ALL, ended(OLD, "superseded")]], "sent first ended [['superseded', 'superseded']]"),
        ([ALL, [ended(NEW, "deployed")]], "sent last ended [['deployed'], ['deployed']]"),
        ([[*ALL, ended(BAD, "invalid", LAID_ASIDE)]], "garbage ended [['invalid', 'invalid']]"),
        (
            [[*IN_ORDER, ended(OTHER, "rolled_back", LAID_ASIDE), REST[1]]],
            "for another image ended [['rolled",
        ),
        ([[*IN_ORDER, REST[0], ended(BAD, "deployed")]], "garbage ended [['deployed']]"),
        (
            [[came(NEW), ended(NEW, "deployed"), ended(OLD, "deployed"), *REST]],
            "sent first was deployed over",
        ),
        ([[ended(NEW, "deployed")], [ended(OLD, "deployed"), *REST]], "sent first was deployed over"),
        ([[ended(NEW, "unchanged"), ended(OLD, "deployed"), *REST]], "sent first was deployed over"),
        ([[came(OLD), ended(NEW, "superseded"), ended(OLD, "deployed"), *REST]], "sent last was passed over"),
        (
            [[ended(OLD, "superseded"), came(NEW), ended(NEW, "deployed"), *REST]],
            "sent first was passed over",
        ),
        ([[*ALL, said("not ended in time", "critical")]], "a surprise"),
        ([[*ALL, said("stopping"), said("unexpected error; please report it", "error")]], "a surprise"),
    ],
)
def test_what_must_not_be_is_one(runs: list[Events], complaint: str) -> None:
    [found] = judged(*runs)
    assert complaint in found


def test_of_two_messages_of_one_moment_either_may_be_the_last() -> None:
    tie = {**SENT, NEW: SENT[OLD]}
    assert (
        judged([*map(came, MESSAGES), ended(NEW, "superseded"), ended(OLD, "deployed"), *REST], sent=tie)
        == []
    )
    assert Judge(MESSAGES, [ALL], tie).last_tags("api") == {"1", "2"}
    assert Judge(MESSAGES, [ALL], SENT).last_tags("api") == {"2"}


def test_what_was_found_unchanged_is_known_to_that_lookout_only() -> None:
    found = [came(NEW), ended(NEW, "unchanged"), *REST]
    assert Judge(MESSAGES, [[*found, ended(OLD, "superseded")]], SENT).last_tags("api") == {"2"}
    assert Judge(MESSAGES, [found, [ended(OLD, "deployed")]], SENT).last_tags("api") == {"1", "2"}
    assert judged(found, [ended(OLD, "deployed")]) == []


def letter(message: str, body: str) -> Json:
    return {"Body": body, "MessageAttributes": {"MessageId": {"StringValue": message}}}


@pytest.mark.parametrize(
    ("letters", "complains"),
    [
        ([letter(BAD, "{}")], False),
        ([letter(BAD, "{}"), letter(BAD, "{}")], False),
        ([], True),
        ([letter(BAD, "another")], True),
        ([letter(BAD, "{}"), letter(NEW, "b")], True),
    ],
    ids=["there", "there twice", "missing", "altered", "a good one too"],
)
def test_all_garbage_and_nothing_else_is_among_the_dead_letters(letters: list[Json], complains: bool) -> None:
    assert bool([*Judge(MESSAGES, [ALL], SENT).of_dead_letters(letters)]) is complains
