"""Lookout as a process of its own, as it runs beside containers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

import lookout
from tests.integration.forked import Forked

Event = dict[str, Any]

# The real command, with the waits that are promises rather than settings made shorter.
COMMAND = (
    "import sys; from lookout.app import Pace; from lookout.cli import main; sys.exit(main(Pace(**{pace})))"
)
# It is the code that the tests import, wherever that is.
CODE = str(Path(lookout.__file__).parent.parent)
ENVIRONMENT = {"PATH": os.defpath, "PYTHONPATH": CODE, "LogFormat": "json", "LogLevel": "debug"}


class RunningLookout:
    """Starts Lookout with these variables and nothing else, and collects the events that it logs."""

    def __init__(
        self, environment: Mapping[str, str], cwd: Path, *, forked: bool = False, **pace: float
    ) -> None:
        """`forked` from a process that has imported everything before, it starts sooner."""
        self.events: list[Event] = []
        self._news = threading.Condition()
        self.heartbeat = cwd / f"heartbeat-{token_hex(4)}"
        variables = {**ENVIRONMENT, "HeartbeatFile": str(self.heartbeat), **environment}
        self._process = Forked(variables, cwd, pace) if forked else _started(variables, cwd, pace)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    def wait_for(self, event: str, *, seconds: float = 40, count: int = 1, **fields: object) -> Event:
        """The count-th event of this name with these fields; fails with all that was logged instead."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                found = self.logged(event, **fields)
                if len(found) >= count:
                    return found[count - 1]
                if not self._news.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    log = "\n".join(map(json.dumps, self.events))
                    raise AssertionError(f"no {event!r} with {fields} in {seconds} s; logged:\n{log}")

    def logged(self, event: str, **fields: object) -> list[Event]:
        return [e for e in self.events if e["event"] == event and fields.items() <= e.items()]

    def order(self, *names: str) -> list[str]:
        """The names of the events of these names, as they came."""
        return [e["event"] for e in self.events if e["event"] in names]

    def signal(self, number: int) -> None:
        """Send a signal; harmless if it has ended already."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns. Harmless if it has ended already."""
        self._process.kill()
        self._process.wait()

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def terminate(self, seconds: float) -> int:
        """SIGTERM; the exit code, which must be there in so many seconds."""
        self.signal(signal.SIGTERM)
        return self.exit_code(seconds)

    def exit_code(self, seconds: float = 20) -> int:
        code = self._process.wait(timeout=seconds)
        self._reader.join()
        return code

    def complaints(self) -> list[str]:
        """What it wrote to standard error, after it has ended."""
        assert self._process.stderr
        return self._process.stderr.read().splitlines()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()


def _started(environment: Mapping[str, str], cwd: Path, pace: Mapping[str, float]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(pace=dict(pace))],
        env=dict(environment),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
