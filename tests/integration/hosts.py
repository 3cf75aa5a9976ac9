"""Which engines a run of the tests uses, and the hosts that have them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import pytest

from testbed.debian import BASE_SUITE, Unavailable
from testbed.engine import PrivateEngine
from testbed.registry import Registry

# Else an engine goes on trying for more than a minute to finish a pull that was cut.
FLAGS = ["--max-download-attempts=1"]
# Each network and published port costs several processes for its rules, and what comes over the loopback
# passes none of them.
if not os.environ.get("LOOKOUT_TEST_COMPAT"):
    FLAGS += ["--iptables=false", "--ip6tables=false"]


@dataclass(frozen=True)
class Flavour:
    """An engine of Debian's, and how it is set up."""

    name: str
    suite: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    def engine(self, *, room: int | None = None) -> PrivateEngine:
        """A new engine of this flavour, not started yet."""
        return PrivateEngine(self.suite, (*FLAGS, *self.flags), self.environment, room=room)


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("bookworm", "bookworm"),
        Flavour("trixie", "trixie"),
        Flavour("forky", "forky"),
        # As Engine 29 comes: its image store, and the oldest API that its first releases spoke.
        Flavour(
            "forky-containerd",
            "forky",
            ("--feature=containerd-snapshotter=true",),
            {"DOCKER_MIN_API_VERSION": "1.44"},
        ),
    )
}
NEWEST = FLAVOURS["forky"]
CONTAINERD = FLAVOURS["forky-containerd"]


def run_flavours() -> tuple[Flavour, ...]:
    """The engines of this run: LOOKOUT_TEST_SUITE names one or more, separated by blanks."""
    names = os.environ.get("LOOKOUT_TEST_SUITE", "").split() or [BASE_SUITE]
    unknown = [name for name in names if name not in FLAVOURS]
    if unknown:
        raise pytest.UsageError(
            f"LOOKOUT_TEST_SUITE: no {unknown[0]} here; choose from {', '.join(FLAVOURS)}"
        )
    return tuple(FLAVOURS[name] for name in names)


@contextmanager
def needed() -> Iterator[None]:
    """Where the test bed cannot be had, skip the test on a person's machine, and fail it in CI."""
    try:
        yield
    except Unavailable as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"NO ENGINE, NOT TESTED: {reason}")


class Host:
    """An engine and its two registries, each started when it is first asked for."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._stack = ExitStack()
        self._problem: Exception | None = None

    @cached_property
    def engine(self) -> PrivateEngine:
        """The engine; what kept it from starting is not tried again, but raised each time."""
        if self._problem:
            raise self._problem
        try:
            engine = self.flavour.engine()
            self._stack.callback(engine.close)
            engine.start()
        except Exception as exc:
            self._problem = exc
            raise
        return engine

    @cached_property
    def registry(self) -> Registry:
        return self._stack.enter_context(Registry(self.engine.sandbox, 5000))

    @cached_property
    def private_registry(self) -> Registry:
        users = {"user": "password"}
        return self._stack.enter_context(Registry(self.engine.sandbox, 5001, users))

    def close(self) -> None:
        """End all that was started."""
        self._stack.close()
