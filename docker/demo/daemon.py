"""Lookout as a process, and its log as it comes."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

STOP_SECONDS = 30


class Daemon:
    """The installed `lookout` with these variables and nothing of the person's but PATH.

    `show` is called with each event that it logs, from another thread.
    """

    def __init__(self, environment: Mapping[str, str], show: Callable[[dict[str, Any]], None]) -> None:
        self._environment = environment
        self._show = show
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # Its working directory is empty, so that it finds nobody's .env.
        self._directory = tempfile.TemporaryDirectory(prefix="lookout-demo-")
        # If the demo is killed, Lookout shall not stay behind.
        leash = ["setpriv", "--pdeathsig=TERM"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*leash, Path(sys.executable).with_name("lookout")],
            cwd=self._directory.name,
            env={
                **self._environment,
                "HOME": self._directory.name,
                "HeartbeatFile": f"{self._directory.name}/heartbeat",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C is for the demo, which then stops Lookout in order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.communicate()
        self._directory.cleanup()

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _read(self) -> None:
        assert self._process
        assert self._process.stdout
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"level": "error", "event": line.rstrip()}
            self._show(event)
