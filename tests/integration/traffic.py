"""What many senders put on a queue: good messages in all spellings, and garbage of many kinds."""

import json
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from testbed.sqs import LocalSqs
from tests.integration.fleet import Fleet

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

#: Most would deploy something if they were read by somebody who means well.
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
    """Sends from several threads; `messages` is what was sent, by message id."""

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
            time.sleep(0.1)
        self.messages[self._sqs.send(self._queue_url, wish.body)] = wish
