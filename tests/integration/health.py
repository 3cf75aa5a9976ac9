"""How a Lookout says that it is well: by its file, and over HTTP."""

import contextlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.running import RunningLookout

#: The waits of its health, made short.
PACE: dict[str, Any] = {"beat_every": 0.1, "ping_patience": 1, "poll_overrun": 3}
PATIENCE = 60  # seconds: no test of speed
BEATS = 1.0  # seconds in which it beats many times

Numbers = dict[str, float]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class Health:
    """That of a Lookout, seen from outside."""

    def __init__(self, lookout: RunningLookout, port: int) -> None:
        self.lookout = lookout
        self.port = port

    @property
    def file(self) -> Path:
        return self.lookout.heartbeat

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and text; 0 where nobody listens."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                return int(answer.status), str(answer.read().decode())
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()
        except (urllib.error.URLError, ConnectionError) as exc:
            return 0, str(exc)

    @property
    def page(self) -> tuple[int, str]:
        return self.get("/healthz")

    def numbers(self) -> Numbers:
        """All that is on /metrics, as Prometheus itself reads it: by names and labels, but for histograms' bounds."""
        status, text = self.get("/metrics")
        assert status == 200
        return {
            " ".join(
                [sample.name, *(v for k, v in sorted(sample.labels.items()) if k == "outcome")]
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if "le" not in sample.labels
        }

    def beats(self, *, within: float = BEATS) -> bool:
        """Whether the file is touched within the time of many beats."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.file, (0, 0))
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.file.exists() and self.file.stat().st_mtime > 1:
                return True
            time.sleep(0.05)
        return False

    def wait_until_well(self) -> None:
        until(lambda: self.page == (200, "ok\n"))
        until(self.beats)
        until(lambda: self.numbers()["lookout_healthy"] == 1)

    def wait_until_ill(self, reason: str) -> None:
        """By this reason, and in every way."""
        until(lambda: self.page[0] == 503)
        until(lambda: not self.beats())
        status, text = self.page
        assert status == 503
        assert reason in text
        assert text.count("\n") == 1
        assert self.numbers()["lookout_healthy"] == 0

    def stays_well(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.page[0] != 200 or not self.beats(within=5 * BEATS):
                return False
        return True
