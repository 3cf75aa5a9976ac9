"""Lookouts on one queue, one after the other or side by side."""

import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

from testbed.engine import PrivateEngine
from testbed.sqs import LocalSqs
from tests.integration.running import Event, RunningLookout

#: Waits that are promises, made short: what is lost on the way comes back after three seconds.
PACE = {
    "lease_floor": 3,
    "lease_margin": 0,
    "backoff_base": 0.5,
    "longest_poll_backoff": 0.3,
    "longest_pull_wait": 0.2,
    "repair_every": 1,
    "result_patience": 2,
}
SETTINGS = {"MonitorSeconds": "0.2", "PollTimeSeconds": "1", "DeployTimeSeconds": "2"}
HIDDEN = 900  # seconds: what a test receives itself stays hidden

SETTLED_WITHIN = 300  # seconds: no test of speed
ENDED_WITHIN = 40  # seconds; other tests say how fast an end has to be

#: Makes an image whose new container is not ready before `let_go`, so that its deploy lasts until then.
WAITS = "HEALTHCHECK --interval=200ms --timeout=9s --retries=9999 CMD test -e /go"


def let_go(engine: PrivateEngine, container: str) -> None:
    engine.inside(container, "touch", "/go")


class Service:
    """The queue, one more for dead letters, and whoever works on them."""

    def __init__(self, engine: PrivateEngine, sqs: LocalSqs, folder: Path) -> None:
        name = f"test-{token_hex(4)}"
        self.queue_url = sqs.create_queue(name, VisibilityTimeout=HIDDEN)
        self.dead_letters_url = sqs.create_queue(f"{name}-dead", VisibilityTimeout=HIDDEN)
        self.lookouts: list[RunningLookout] = []
        self._sqs = sqs
        self._folder = folder
        self._environment = {
            "SqsQueueUrl": self.queue_url,
            "DeadLetterQueueUrl": self.dead_letters_url,
            "DOCKER_HOST": engine.docker_host,
            **SETTINGS,
            **sqs.environment(),
        }

    @property
    def runs(self) -> list[list[Event]]:
        """What each Lookout has logged."""
        return [lookout.events for lookout in self.lookouts]

    def start(self, *, pace: dict[str, Any] | None = None, **settings: str) -> RunningLookout:
        environment = self._environment | settings
        self.lookouts.append(RunningLookout(environment, self._folder, forked=True, **(PACE | (pace or {}))))
        return self.lookouts[-1]

    def send(self, reference: str, **more: object) -> str:
        """Ask for a deploy of `image:tag`, and return the id of the message."""
        name, _, tag = reference.rpartition(":")
        return self._sqs.send(self.queue_url, {"ImageName": name, "ImageTag": tag, **more})

    def wait_for_one(self, event: str, **fields: object) -> None:
        """Wait until one of the Lookouts has logged this."""
        deadline = time.monotonic() + SETTLED_WITHIN
        while not any(lookout.logged(event, **fields) for lookout in self.lookouts):
            assert time.monotonic() < deadline, f"no {event!r} with {fields}"
            time.sleep(0.1)

    def wait_until_settled(self, queue_url: str = "") -> None:
        """Wait until no message is left, neither visible nor in flight."""
        deadline = time.monotonic() + SETTLED_WITHIN
        while (left := self._sqs.count(queue_url or self.queue_url)) != (0, 0):
            assert time.monotonic() < deadline, f"visible and in flight are still {left}"
            time.sleep(0.1)

    def dead_letters(self) -> Iterator[dict[str, Any]]:
        """All of them, once."""
        while some := self._sqs.receive(self.dead_letters_url):
            yield from some

    def close(self) -> None:
        for lookout in self.lookouts:
            lookout.__exit__()
