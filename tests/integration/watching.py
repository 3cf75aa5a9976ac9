"""What an engine has done since a moment, and how a container or a port of it answers."""

import json
import time
from collections.abc import Callable

from lookout.model import Json
from testbed.debian import unpacked
from testbed.engine import DockerFailed, PrivateEngine

#: What a swap does to containers; looking at them and health checks do not count.
TOUCHES = (
    *("create", "start", "stop", "kill", "die", "rename", "update", "destroy", "pause", "unpause"),
    *("connect", "disconnect"),
)


class Watch:
    """The engine's own events since this was made. It keeps the last few hundred."""

    def __init__(self, engine: PrivateEngine) -> None:
        self._engine = engine
        self._since = time.time()

    def events(self, kind: str) -> list[Json]:
        """All events of one kind, such as container, network or volume, in order."""
        span = {"since": f"{self._since:.9f}", "until": f"{time.time():.9f}"}
        lines = self._engine.get("/events", **span, filters=json.dumps({"type": [kind]}))
        return [json.loads(line) for line in lines.splitlines()]

    def touches(self) -> list[tuple[str, str]]:
        """What was done to containers and networks, and to which; empty if all were left alone."""
        return [
            (event["Action"], event["Actor"]["Attributes"].get("name", ""))
            for kind in ("container", "network")
            for event in self.events(kind)
            if event["Action"] in TOUCHES
        ]

    def volumes(self, action: str) -> set[str]:
        """Names of the volumes that were created, or destroyed."""
        return {event["Actor"]["ID"] for event in self.events("volume") if event["Action"] == action}


def volumes(engine: PrivateEngine) -> set[str]:
    return {volume["Name"] for volume in json.loads(engine.get("/volumes"))["Volumes"] or ()}


def page(engine: PrivateEngine, url: str, within: float = 10) -> str:
    """What answers at `url`, seen from the machine of the engine, as soon as something does."""
    wget = (unpacked().program("busybox"), "wget", "-q", "-O-", url)
    return _patiently(lambda: engine.sandbox.run(wget), within)


def served(engine: PrivateEngine, container: str, url: str, within: float = 10) -> str:
    """What answers at `url`, seen from inside of the container, as soon as something does."""
    return _patiently(lambda: engine.inside(container, "wget", "-q", "-O-", url), within)


def _patiently(look: Callable[[], str], within: float) -> str:
    """A container runs before its application listens."""
    deadline = time.monotonic() + within
    while True:
        try:
            return look()
        except (DockerFailed, RuntimeError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def state(engine: PrivateEngine, container: str) -> tuple[str, bool]:
    """The id of the container of this name, and whether it runs; nothing while there is none."""
    try:
        found = engine.inspected(container)
    except DockerFailed:
        return "", False
    return found["Id"], found["State"]["Running"]


def exists(engine: PrivateEngine, container: str) -> bool:
    return bool(state(engine, container)[0])
