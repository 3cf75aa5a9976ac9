"""What the parts see of themselves, in numbers, and whether all of that is well."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from lookout.model import Outcome, Report
from lookout.printable import discreet

FAILURES = 3  # in a row are an illness: what is slow, or away for a moment, is none
POLL_OVERRUN = 20.0  # seconds beyond its wait after which a poll hangs: the SDK itself gives up before

DEPLOY_BOUNDS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)
PULL_BOUNDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
DOWNTIME_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)

_LONGEST_REASON = 300  # characters


class Held(Protocol):
    """The messages in flight."""

    @property
    def in_flight(self) -> int:
        """How many there are."""

    def overdue(self) -> str:
        """Why a lease that should have been renewed was not; empty where all are."""


class NothingHeld:
    """No message is in flight yet."""

    in_flight = 0

    def overdue(self) -> str:
        return ""


class Histogram:
    """How often something took how long: always as many numbers as there are bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one is of what is beyond all bounds
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


@dataclass
class _Answers:
    """Of a server that is asked again and again."""

    ever: bool = False
    failed: int = 0  # in a row
    reason: str = ""

    def note(self, failure: str | None) -> None:
        self.ever = self.ever or failure is None
        self.failed = 0 if failure is None else self.failed + 1
        self.reason = discreet(failure or "", longest=_LONGEST_REASON)


class Vitals:
    """Each part writes into it what it sees; all times are those of a clock that nobody sets.

    Where neither the queue nor the engine has answered since the start, all is not well yet.
    """

    def __init__(
        self, *, longest_poll: float = 20 + POLL_OVERRUN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.messages = Counter(dict.fromkeys(Outcome, 0))
        self.deploys: dict[Outcome, Histogram] = {}
        self.pulls = Histogram(PULL_BOUNDS)
        self.downtimes = Histogram(DOWNTIME_BOUNDS)
        self.poll_errors = 0
        self.lease_errors = 0
        self.held: Held = NothingHeld()
        self._longest_poll = longest_poll
        self._clock = clock
        self._engine = _Answers()
        self._polls = _Answers()
        self._poll_began: float | None = None

    def engine_answered(self) -> None:
        self._engine.note(None)

    def engine_failed(self, reason: str) -> None:
        self._engine.note(reason)

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Around a call that waits for messages. Between two of them nothing is expected of the queue."""
        self._poll_began = self._clock()
        try:
            yield
        except Exception as exc:
            self.poll_errors += 1
            self._polls.note(str(exc))
            raise
        else:
            self._polls.note(None)
        finally:
            self._poll_began = None

    def renewal_failed(self) -> None:
        self.lease_errors += 1

    def ended(self, report: Report, seconds: object = None) -> None:
        """A try of a message has ended, after a deploy of so many seconds if there was one.

        One for another host was only looked at.
        """
        if report.retry_after is not None:
            return
        self.messages[report.outcome] += 1
        if isinstance(seconds, int | float):
            self.deploys.setdefault(report.outcome, Histogram(DEPLOY_BOUNDS)).observe(seconds)
        for container in report.each:
            if container.downtime is not None:
                self.downtimes.observe(container.downtime)

    def pulled(self, seconds: float) -> None:
        self.pulls.observe(seconds)

    def problem(self) -> str:
        """What is wrong, in one line; empty where all is well."""
        return (
            self._engine_problem()
            or self._poll_problem()
            or discreet(self.held.overdue(), longest=_LONGEST_REASON)
        )

    def _engine_problem(self) -> str:
        if self._engine.failed >= FAILURES:
            return self._engine.reason
        return "" if self._engine.ever else "starting: the engine has not answered yet"

    def _poll_problem(self) -> str:
        if self._polls.failed >= FAILURES:
            return f"cannot poll: {self._polls.reason}"
        if self._poll_began is not None and (took := self._clock() - self._poll_began) > self._longest_poll:
            return f"a poll of the queue has not been answered for {took:.0f} s"
        return "" if self._polls.ever else "starting: no poll of the queue has been answered yet"
