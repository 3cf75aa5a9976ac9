"""Lookout as people run it: a container of its own image, beside those that it deploys."""

import json
import time
from typing import Any

from testbed.engine import PrivateEngine

Event = dict[str, Any]

HEADER = 8  # bytes before each piece of a log, the last four of which say how long it is


class ContainedLookout:
    """A container that exists already, and what it logs as JSON; it is looked after by who made it."""

    def __init__(self, engine: PrivateEngine, container: str) -> None:
        self.engine = engine
        self.container = container

    def log(self) -> str:
        """All that it has written so far."""
        said = self.engine.get(f"/containers/{self.container}/logs", stdout="1", stderr="1")
        pieces = []
        while said:
            end = HEADER + int.from_bytes(said[4:HEADER])
            pieces.append(said[HEADER:end])
            said = said[end:]
        return b"".join(pieces).decode()

    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def wait_for(self, event: str, *, seconds: float = 60, **fields: object) -> Event:
        """The first event of this name with these fields; fails with all that was logged instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for one in self.events():
                if one["event"] == event and fields.items() <= one.items():
                    return one
            time.sleep(0.3)
        raise AssertionError(f"no {event!r} with {fields} in {seconds} s; logged:\n{self.log()}")

    def wait_until_healthy(self, seconds: float = 60) -> None:
        """By the check that the image has, as the engine makes it."""
        deadline = time.monotonic() + seconds
        while (health := self.state()["Health"])["Status"] != "healthy":
            assert time.monotonic() < deadline, f"{health}; logged:\n{self.log()}"
            time.sleep(0.3)

    def lookout(self, *arguments: str) -> str:
        """What the command says in the container, as with `docker exec`; raises DockerFailed."""
        return self.engine.docker("exec", self.container, "lookout", *arguments)

    def state(self) -> dict[str, Any]:
        return dict(self.engine.inspected(self.container)["State"])

    def stop(self) -> int:
        """As `docker stop` does; the exit code."""
        self.engine.docker("stop", self.container)
        return int(self.state()["ExitCode"])
