"""What many senders put on a queue, and what is wrong with how it ended."""

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from lookout.model import Outcome
from testbed.sqs import LocalSqs
from tests.integration.crash_judge import DELETED
from tests.integration.fleet import Fleet
from tests.integration.running import Event

LAID_ASIDE = "the message is sent to the dead-letter queue and deleted"
GOOD_ENDS = (Outcome.DEPLOYED, Outcome.UNCHANGED, Outcome.SUPERSEDED)

GARBAGE_IN_TEN = 1
AGAIN_IN_TEN = 2  # of the good ones: the body of one before, sent anew
LONGEST = 200_000  # characters
AHEAD = 5  # messages

Make = Callable[[str, str], str]


def _body(name: object, tag: object, **more: object) -> str:
    return json.dumps({"ImageName": name, "ImageTag": tag, "DeployTimeSeconds": "1", **more})


#: The ways to ask for the same.
GOOD: tuple[Make, ...] = (
    _body,
    lambda name, tag: _body(name, tag, DeployTimeSeconds=2),
    lambda name, tag: json.dumps({"imagename": name, "IMAGETAG": tag, "Colour": "blue"}),
    lambda name, tag: json.dumps({"Type": "Notification", "Message": _body(name, tag)}),
)

#: Each would deploy something if it were read by somebody who means well.
GARBAGE: tuple[Make, ...] = (
    lambda name, tag: _body(f"{name}:{tag}", tag),
    lambda name, tag: _body(f"{name}@sha256:{'0' * 64}", tag),
    lambda name, tag: _body(name.upper(), tag),
    lambda name, tag: _body([name], tag),
    lambda name, tag: _body(name, int(tag)),
    lambda name, tag: _body(name, f" {tag}"),
    lambda name, _: _body(name, None),
    lambda name, tag: _body(name, tag, DeployTimeSeconds="soon"),
    lambda name, tag: _body(name, tag, DeployTimeSeconds=-1),
    lambda name, tag: _body(name, tag, DeployTimeSeconds=True),
    lambda name, tag: _body(name, tag, imagename=name),
    lambda name, tag: _body(name, tag, ImageDigest="sha256:0"),
    lambda name, tag: _body(name, tag, HostId=["this"]),
    lambda name, tag: _body(name, tag)[:-1],
    lambda name, tag: f"[{_body(name, tag)}]",
    lambda name, tag: json.dumps(_body(name, tag)),
    lambda name, tag: _body(name, tag) * 2,
    lambda name, tag: json.dumps({"Type": "Notification", "Message": json.loads(_body(name, tag))}),
    lambda name, _: json.dumps({"ImageName": name}),
    lambda name, tag: f"please deploy {name}:{tag} \N{ROCKET}",
    lambda *_: "{}",
    lambda *_: "[" * LONGEST,
    lambda *_: "x" * LONGEST,
)


@dataclass(frozen=True)
class Wish:
    """A message that is to be sent; garbage asks for nothing."""

    body: str
    repository: str = ""
    tag: str = ""

    @property
    def is_garbage(self) -> bool:
        return not self.repository


def wishes(fleet: Fleet, count: int, chance: random.Random) -> list[Wish]:
    """So many messages in random order, with some garbage, some sent twice, and some for each image."""
    tags = fleet.tags
    bad = count * GARBAGE_IN_TEN // 10
    again = (count - bad) * AGAIN_IN_TEN // 10
    good = []
    for number in range(count - bad - again):
        repository, tag = fleet.repositories[number % len(fleet.repositories)], chance.choice(tags)
        good.append(Wish(chance.choice(GOOD)(repository, tag), repository, tag))
    good += chance.choices(good, k=again)
    ways = [GARBAGE[number % len(GARBAGE)] for number in range(bad)]
    garbage = [Wish(make(chance.choice(fleet.repositories), chance.choice(tags))) for make in ways]
    return chance.sample(good + garbage, count)


class Traffic:
    """What was sent, by message id, and later what came of it."""

    def __init__(self, sqs: LocalSqs, queue_url: str, senders: int) -> None:
        self.messages: dict[str, Wish] = {}
        self._sqs = sqs
        self._queue_url = queue_url
        self._senders = ThreadPoolExecutor(senders)
        self._sending: list[Future[None]] = []
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._senders.shutdown(cancel_futures=True)

    def send(self, some: Iterable[Wish]) -> None:
        """Let the senders send these from now on, side by side."""
        self._sending += [self._senders.submit(self._send, wish) for wish in some]

    def wait_until_sent(self) -> None:
        for sending in self._sending:
            sending.result()

    def _send(self, wish: Wish) -> None:
        """Not far ahead of what is received: then messages also come while a deploy runs."""
        while not self._is_over and self._sqs.count(self._queue_url)[0] > AHEAD:
            time.sleep(0.02)
        self.messages[self._sqs.send(self._queue_url, wish.body)] = wish

    def complaints_of_ends(self, runs: Sequence[Sequence[Event]]) -> Iterator[str]:
        """What is wrong with how the messages ended; `runs` are the events of each Lookout, in order.

        A message that was settled, and whose delete did not come through before the end of that Lookout,
        is settled anew by the next one; but it never does twice what touches a container.
        """
        for message, wish in self.messages.items():
            ends = [_ends(events, message) for events in runs]
            flat = [outcome for run in ends for outcome in run]
            allowed = (Outcome.INVALID,) if wish.is_garbage else GOOD_ENDS
            touched = [outcome for outcome in flat if outcome not in (Outcome.UNCHANGED, Outcome.SUPERSEDED)]
            once = flat and max(map(len, ends)) == 1 and (wish.is_garbage or len(touched) <= 1)
            if not once or not {*flat} <= {*allowed}:
                yield f"{wish.repository or 'garbage'}: {message} ended {ends} in the runs"
        for event in (event for events in runs for event in events):
            if event["level"] == "critical" or "please report it" in event["event"]:
                yield f"a surprise: {event}"

    def complaints_of_order(self, runs: Sequence[Sequence[Event]], sent: Mapping[str, int]) -> Iterator[str]:
        """Where something older than what ran was deployed, or something was passed over for what is older.

        `sent` is when each message was sent, by the clock of the queue.
        """
        known: defaultdict[str, dict[str, int]] = defaultdict(dict)  # what came so far, by image
        runs_from: defaultdict[str, int] = defaultdict(int)  # when what runs was sent
        for events in runs:
            found: defaultdict[str, int] = defaultdict(int)  # or confirmed: only this Lookout knows that
            for event, message, wish in self._of_good_ones(events):
                moment, image = sent[message], wish.repository
                known[image][message] = moment
                if event.get("outcome") == Outcome.SUPERSEDED:
                    others = [other for name, other in known[image].items() if name != message]
                    if max(others, default=0) < moment:
                        yield f"{image}: {message} was passed over, and nothing newer had come"
                if event.get("outcome") == Outcome.DEPLOYED:
                    if moment < max(runs_from[image], found[image]):
                        yield f"{image}: {message} was deployed over something newer"
                    runs_from[image] = moment
                if event.get("outcome") in (Outcome.DEPLOYED, Outcome.UNCHANGED):
                    found[image] = max(found[image], moment)

    def _of_good_ones(self, events: Sequence[Event]) -> Iterator[tuple[Event, str, Wish]]:
        for event in events:
            message = event.get("message_id", "")
            if (wish := self.messages.get(message)) and not wish.is_garbage:
                yield event, message, wish

    def complaints_of_dead_letters(self, letters: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """What is wrong with the queue of garbage, of which these are all messages."""
        laid_aside: defaultdict[str, set[str]] = defaultdict(set)
        for letter in letters:
            laid_aside[letter["MessageAttributes"]["MessageId"]["StringValue"]].add(letter["Body"])
        garbage = {message: {wish.body} for message, wish in self.messages.items() if wish.is_garbage}
        for message in garbage.keys() | laid_aside.keys():
            if laid_aside.get(message) != garbage.get(message):
                said = [body[:80] for body in laid_aside.get(message, ())]
                yield f"of {message}, {self.messages[message].body[:80]!a}, the dead letters are {said}"

    def newest(self, sent: Mapping[str, int], repository: str) -> dict[str, Wish]:
        """The message for this image that was sent last, by the clock of the queue; several of one moment."""
        own = {message: wish for message, wish in self.messages.items() if wish.repository == repository}
        last = max(sent[message] for message in own)
        return {message: wish for message, wish in own.items() if sent[message] == last}


def _ends(events: Sequence[Event], message: str) -> list[str]:
    """How this message ended for good."""
    return [
        str(event["outcome"])
        for event in events
        if event.get("message_id") == message and event.get("next") in (DELETED, LAID_ASIDE)
    ]
