"""The file that is touched while all is well."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from lookout.errors import EngineUnavailable
from lookout.heartbeat import Heartbeat, HeartbeatFile
from lookout.vitals import Vitals

OLD = 1_000_000_000  # seconds since the epoch
TICK = 0.01


class Engine:
    """Answers, fails, or lets wait."""

    def __init__(self) -> None:
        self.answers = True
        self.asked: list[float] = []

    async def ping(self, *, within: float) -> None:
        self.asked.append(within)
        if not self.answers:
            raise EngineUnavailable("say that it is there", "no answer in time")


class Beating:
    """A heartbeat that beats often, with all that it sees."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = Engine()
        self.vitals = Vitals()

    def poll(self) -> None:
        with self.vitals.polling():
            pass

    async def until_beaten(self) -> None:
        """Until it beats once more."""
        if self.path.exists():
            os.utime(self.path, (OLD, OLD))
        async with asyncio.timeout(10):
            while not self.beats:
                await asyncio.sleep(TICK)

    async def until_ill(self) -> None:
        async with asyncio.timeout(10):
            while not self.vitals.problem():
                await asyncio.sleep(TICK)

    @property
    def beats(self) -> bool:
        return self.path.exists() and self.path.stat().st_mtime > OLD + 1

    async def rests(self) -> bool:
        """Whether it does not beat in many times of a beat."""
        if self.path.exists():
            os.utime(self.path, (OLD, OLD))
        await asyncio.sleep(10 * TICK)
        return not self.beats


@asynccontextmanager
async def beating(path: Path) -> AsyncIterator[Beating]:
    one = Beating(path)
    task = asyncio.create_task(Heartbeat(path, one.vitals, one.engine, every=TICK, engine_patience=7).run())
    try:
        yield one
        assert not task.done(), "it ended by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_beats_only_while_all_is_well_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    async with beating(path) as one:
        assert await one.rests(), "it only starts"
        assert not path.exists()
        one.poll()
        await one.until_beaten()
        await one.until_beaten()
        one.engine.answers = False
        await one.until_ill()
        assert await one.rests()
        assert path.exists(), "its age tells since when"
        one.engine.answers = True
        await one.until_beaten()
        assert set(one.engine.asked) == {7}
    assert not path.exists()


async def test_an_engine_that_lets_wait_does_not_stop_the_beats(tmp_path: Path) -> None:
    async with beating(tmp_path / "heartbeat") as one:
        one.poll()
        await one.until_beaten()

        async def wait(*, within: float) -> None:
            await asyncio.sleep(60)

        one.engine.ping = wait  # type: ignore[method-assign]
        await asyncio.sleep(5 * TICK)
        await one.until_beaten()


async def test_a_fault_of_its_own_is_told_once_and_it_goes_on(tmp_path: Path, logs: list[EventDict]) -> None:
    async with beating(tmp_path / "heartbeat") as one:
        one.poll()
        await one.until_beaten()
        ping, problem = one.engine.ping, one.vitals.problem

        def fail(**_: float) -> str:
            raise RuntimeError("a bug")

        for _ in range(2):
            one.engine.ping = one.vitals.problem = fail  # type: ignore[assignment, method-assign]
            assert await one.rests()
            one.engine.ping, one.vitals.problem = ping, problem  # type: ignore[method-assign]
            await one.until_beaten()
    told = [event["event"] for event in logs if event["log_level"] == "error"]
    assert told == ["unexpected error; please report it"] * 4, "of each of both, each time"


async def test_what_changes_is_told_once(tmp_path: Path, logs: list[EventDict]) -> None:
    async with beating(tmp_path / "heartbeat") as one:
        assert await one.rests()
        assert logs == [], "that it is not well before it has started is nothing to tell"
        for _ in range(2):
            one.engine.answers = True
            one.poll()
            await one.until_beaten()
            await one.until_beaten()
            one.engine.answers = False
            await one.until_ill()
            assert await one.rests()
    told = [(event["event"], event["log_level"]) for event in logs]
    assert told == [("healthy", "info"), ("unhealthy", "warning")] * 2
    assert "no answer in time" in logs[1]["reason"]


async def test_the_file_of_one_that_was_killed_does_not_tell_that_the_next_one_is_well(
    tmp_path: Path,
) -> None:
    path = tmp_path / "heartbeat"
    path.touch()
    async with beating(path):
        async with asyncio.timeout(10):
            while path.exists():
                await asyncio.sleep(TICK)


async def test_a_file_that_somebody_removes_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    async with beating(path) as one:
        one.poll()
        await one.until_beaten()
        path.unlink()
        await one.until_beaten()


@pytest.fixture
def logs() -> object:
    with capture_logs() as events:
        yield events


# What lies there already


def test_others_may_read_the_file_and_nobody_else_may_write_it(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    HeartbeatFile(path).touch()
    assert path.stat().st_mode & 0o022 == 0
    assert path.stat().st_mode & 0o400


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_is_neither_followed_nor_removed(tmp_path: Path, logs: list[EventDict], there: bool) -> None:
    target, link = tmp_path / "target", tmp_path / "heartbeat"
    if there:
        target.touch()
        os.utime(target, (OLD, OLD))
    link.symlink_to(target)
    file = HeartbeatFile(link)
    file.touch()
    file.remove()
    assert link.is_symlink()
    assert target.exists() == there
    assert not there or target.stat().st_mtime == OLD
    assert [event["event"] for event in logs] == ["the heartbeat file cannot be written; going on without"]


def test_a_file_with_something_in_it_is_neither_touched_nor_removed(
    tmp_path: Path, logs: list[EventDict]
) -> None:
    path = tmp_path / "passwords"
    path.write_text("something")
    os.utime(path, (OLD, OLD))
    file = HeartbeatFile(path)
    file.touch()
    file.remove()
    assert path.read_text() == "something"
    assert path.stat().st_mtime == OLD
    assert [event["error"] for event in logs] == ["there is a file that is no heartbeat"]


def test_a_pipe_that_nobody_reads_does_not_hold_it_up(tmp_path: Path, logs: list[EventDict]) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    HeartbeatFile(path).touch()
    assert len(logs) == 1


@pytest.mark.parametrize("path", ["/nonexistent/heartbeat", "/proc/heartbeat", "/", "/dev/null", "/tmp/\0"])
def test_what_cannot_be_written_is_warned_of_once(path: str, logs: list[EventDict]) -> None:
    file = HeartbeatFile(Path(path))
    for _ in range(3):
        file.touch()
    file.remove()
    (warning,) = logs
    assert warning["log_level"] == "warning"
    assert warning["file"] == path
    assert warning["error"]


def test_what_can_be_written_again_is_warned_of_again(tmp_path: Path, logs: list[EventDict]) -> None:
    path = tmp_path / "folder" / "heartbeat"
    file = HeartbeatFile(path)
    file.touch()
    path.parent.mkdir()
    file.touch()
    assert path.exists()
    path.unlink()
    path.parent.rmdir()
    file.touch()
    file.touch()
    assert len(logs) == 2
