"""Runs Lookout's image and the bare floor side by side, and looks at what the two take while they idle."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex

from testbed.engine import PrivateEngine
from testbed.gate import Gate
from testbed.sqs import LocalSqs

FLOOR = Path(__file__).with_name("floor.py").read_text()
SOCKET = "/var/run/docker.sock"
#: Times what the floor has, at most.
RSS_RATIO = 1.2
PATIENCE = 120  # seconds, no test of speed


class NotIdle(Exception):
    """One of the two does not come to idle, or has ended; says what it has logged."""


@dataclass(frozen=True)
class Usage:
    """What the main process of a container took."""

    start: float  # seconds from the container's start to its first poll
    rss: int  # bytes
    pss: int  # bytes: what it shares with others counts in parts
    cpu: float  # share of a core while it idled


@dataclass(frozen=True)
class Footprint:
    floor: Usage
    lookout: Usage

    @property
    def rss_ratio(self) -> float:
        return self.lookout.rss / self.floor.rss


def footprint(
    engine: PrivateEngine, image: str, sqs: LocalSqs, gate: Gate, *, poll_time: int, window: float
) -> Footprint:
    """Of an image on an engine; both poll an empty queue of their own, and are watched for a `window` of seconds.

    Raises NotIdle where one of them does something else.
    """

    def variables(name: str) -> list[str]:
        url = sqs.create_queue(f"footprint-{name}-{token_hex(4)}").replace(sqs.endpoint, gate.endpoint)
        values = sqs.environment() | {
            "SQS_QUEUE_URL": url,
            "POLL_TIME_SECONDS": str(poll_time),
            "LOG_FORMAT": "json",
        }
        values |= {key: gate.endpoint for key in values if key.startswith("AWS_ENDPOINT_URL")}
        return [f"--env={key}={value}" for key, value in values.items()]

    floor = (*variables("floor"), "--entrypoint=python", image, "-c", FLOOR)
    lookout = (*variables("lookout"), f"--volume={engine.socket}:{SOCKET}", image)
    with _Container.running(engine, *floor) as bare, _Container.running(engine, *lookout) as daemon:
        began = {
            bare: bare.wait_for(lambda log: float(log.split()[0]) if log else None),
            daemon: daemon.wait_for(lambda log: _time_of(log, "polling")),
        }
        # Then it has had answers of the queue and of the engine, and has looked at all containers.
        daemon.wait_for(lambda log: _time_of(log, "healthy") and _time_of(log, "managing"))
        time.sleep(poll_time)
        before = {one: one.cpu() for one in began}
        time.sleep(window)
        usages = (
            Usage(first - one.started, *one.memory(), (one.cpu() - before[one]) / window)
            for one, first in began.items()
        )
        return Footprint(*usages)


def size(engine: PrivateEngine, reference: str) -> int:
    """Bytes of an image, with all that it has of its base."""
    return int(engine.docker("image", "inspect", "--format={{.Size}}", reference))


class _Container:
    def __init__(self, engine: PrivateEngine, container: str) -> None:
        self._engine = engine
        self._container = container
        state = engine.inspected(container)["State"]
        self._proc = f"/proc/{state['Pid']}"
        self.started = _seconds(state["StartedAt"])

    @classmethod
    @contextmanager
    def running(cls, engine: PrivateEngine, *arguments: str) -> Iterator["_Container"]:
        container = engine.docker("run", "--detach", *arguments)
        try:
            yield cls(engine, container)
        finally:
            engine.delete(f"/containers/{container}", force="1", v="1")

    def wait_for(self, find: Callable[[str], float | None]) -> float:
        """What is found in the log, once it is there."""
        deadline = time.monotonic() + PATIENCE
        while (found := find(self._log())) is None:
            if time.monotonic() > deadline or not self._engine.inspected(self._container)["State"]["Running"]:
                raise NotIdle(self._log())
            time.sleep(0.5)
        return found

    def memory(self) -> tuple[int, int]:
        """RSS and PSS in bytes."""
        lines = [line.split() for line in self._read("smaps_rollup").splitlines()]
        kilobytes = {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
        return kilobytes["Rss:"] * 1024, kilobytes["Pss:"] * 1024

    def cpu(self) -> float:
        """Seconds so far, of all threads that there are."""
        nanoseconds = (line.split()[0] for line in self._read("task/*/schedstat").splitlines())
        return sum(map(int, nanoseconds)) / 1e9

    def _read(self, name: str) -> str:
        """The files of that name, or pattern, that the kernel has about the process."""
        try:
            return self._engine.sandbox.run(["sh", "-c", f"cat {self._proc}/{name}"])
        except RuntimeError:
            raise NotIdle(self._log()) from None

    def _log(self) -> str:
        return self._engine.docker("logs", self._container)


def _time_of(log: str, event: str) -> float | None:
    for line in log.splitlines():
        if (said := json.loads(line))["event"] == event:
            return _seconds(said["timestamp"])
    return None


def _seconds(written: str) -> float:
    """Since the epoch, of a time as logs and engines write it."""
    whole, _, fraction = written.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")
