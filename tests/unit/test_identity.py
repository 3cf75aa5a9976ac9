"""Whether another Lookout is still at work."""

import os
import socket
import subprocess

import pytest

from lookout.engine import Engine
from lookout.errors import NotFound
from lookout.identity import identity, is_at_work
from lookout.model import Json


class Containers(Engine):
    """An engine with these containers."""

    def __init__(self, **running: bool) -> None:
        self._running = running

    async def container(self, key: str) -> Json:
        if key not in self._running:
            raise NotFound("inspect", 404, "no such container")
        return {"State": {"Running": self._running[key]}}


@pytest.mark.parametrize(
    ("running", "expected"), [({"a" * 64: True}, True), ({"a" * 64: False}, False), ({}, False)]
)
async def test_one_in_a_container_is_at_work_while_that_runs(
    running: dict[str, bool], expected: bool
) -> None:
    engine = Containers(**running, **{"b" * 64: True})
    assert await is_at_work(engine, "a" * 64, own="b" * 64) is expected


@pytest.mark.parametrize("own", ["host:1:2", "c" * 64], ids=["a process", "in a container of another engine"])
async def test_one_in_a_container_that_this_engine_does_not_have_may_be_on_another_one(own: str) -> None:
    assert await is_at_work(Containers(), "a" * 64, own=own) is None


async def test_this_very_process_is_at_work() -> None:
    assert await is_at_work(Containers(), identity(None), own="me") is True


@pytest.fixture
def ended() -> int:
    """The number of a process that was."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


async def test_a_process_that_has_ended_is_not_nor_another_one_of_its_number(ended: int) -> None:
    place = identity(None).split(":")[0]
    assert await is_at_work(Containers(), f"{place}:{ended}:1", own="me") is False
    assert await is_at_work(Containers(), f"{place}:{os.getpid()}:1", own="me") is False


@pytest.mark.parametrize(
    "by", ["elsewhere:1:2", "somebody", "", "a:b:c:d", f"{socket.gethostname()}/other:1:2"]
)
async def test_of_another_machine_it_cannot_be_told(by: str) -> None:
    assert await is_at_work(Containers(), by, own="me") is None
