"""Lookout as a process of its own that has imported everything before: for those who start it hundreds of times."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "lookout.app",
        "lookout.cli",
        "lookout.arguments",
        "lookout.settings",
        "aiobotocore.session",
        "lookout.sender",
        "rich.live",
    ]
)


class Forked:
    """What `subprocess.Popen` gives of a process, as far as a test needs it; only `stdout` is a pipe."""

    stderr = None

    def __init__(self, environment: Mapping[str, str], cwd: Path, pace: Mapping[str, float]) -> None:
        mine, its = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(
            target=_live, args=(dict(environment), str(cwd), dict(pace), its), daemon=True
        )
        self._process.start()
        its.close()
        self.stdout: IO[str] = os.fdopen(os.dup(mine.fileno()))
        mine.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("lookout", timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        if self._process.pid and self.poll() is None:
            os.kill(self._process.pid, number)


def run(
    environment: Mapping[str, str], cwd: Path, arguments: Sequence[str], *, timeout: float
) -> tuple[int, str, str]:
    """The command with these arguments, to its end: its exit code, and what it wrote to its two outputs."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _CONTEXT.Process(
            target=_run, args=(dict(environment), str(cwd), list(arguments), str(out), str(err)), daemon=True
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        return process.exitcode, out.read_text(), err.read_text()


def _run(environment: dict[str, str], cwd: str, arguments: list[str], out: str, err: str) -> None:
    from lookout.cli import main

    for number, path in ((1, Path(out)), (2, Path(err))):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115  they last as long as the process
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["lookout", *arguments]
    sys.exit(main())


def _live(environment: dict[str, str], cwd: str, pace: dict[str, float], output: Connection) -> None:
    from lookout.app import Pace
    from lookout.cli import main

    sys.stdout = os.fdopen(output.fileno(), "w")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["lookout"]
    sys.exit(main(Pace(**pace)))
