"""Lookout as people run it: a container of its own image, beside those that it deploys."""

import json
from itertools import chain
from typing import Any

from testbed.engine import PrivateEngine

Event = dict[str, Any]

LOOKOUT_USER = 65532  # that of its image


class ContainedLookout:
    """A container that exists already, and what it logs as JSON; it is looked after by who made it."""

    def __init__(self, engine: PrivateEngine, container: str) -> None:
        self.engine = engine
        self.container = container

    def wait_for(self, event: str, *, seconds: float = 60, **fields: object) -> Event:
        """The first event of this name with these fields; fails with all that was logged instead."""
        said = []
        for line in self.engine.lines("logs", "--follow", self.container, seconds=seconds):
            said.append(line)
            if line.startswith("{"):
                one: Event = json.loads(line)
                if one["event"] == event and fields.items() <= one.items():
                    return one
        raise AssertionError(f"no {event!r} with {fields} in {seconds} s; logged:\n{''.join(said)}")

    def wait_until_healthy(self, seconds: float = 60) -> None:
        """By the check that the image has, as the engine makes it."""
        about = (f"--filter=container={self.container}", "--filter=event=health_status", "--since=0")
        for _ in chain(["now"], self.engine.lines("events", *about, seconds=seconds)):
            if (health := self.state()["Health"])["Status"] == "healthy":
                return
        said = self.engine.lines("logs", self.container, seconds=seconds)
        raise AssertionError(f"{health}; logged:\n{''.join(said)}")

    def lookout(self, *arguments: str) -> str:
        """What the command says in the container, as with `docker exec`; raises DockerFailed."""
        return self.engine.docker("exec", self.container, "lookout", *arguments)

    def state(self) -> dict[str, Any]:
        return dict(self.engine.inspected(self.container)["State"])

    def stop(self) -> int:
        """As `docker stop` does; the exit code."""
        self.engine.docker("stop", self.container)
        return int(self.state()["ExitCode"])
