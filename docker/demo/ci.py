"""CI: it asks for a deploy with `lookout deploy`, and hears how that ended."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from demo import screen


class Ask:
    """One step of a CI run. What it prints is shown as it comes."""

    def __init__(self, environment: Mapping[str, str], image: str) -> None:
        command = ["lookout", "deploy", image, "--deploy-time", "30"]
        screen.say("ci", " ".join(command), screen.COLORS["sent"])
        # Its working directory is empty, so that it finds nobody's .env.
        self._directory = tempfile.TemporaryDirectory(prefix="lookout-demo-")
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            cwd=self._directory.name,
            env={**environment, "HOME": self._directory.name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._printed: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def exit_code(self) -> int:
        """When it has ended, which it does by itself in the end."""
        try:
            return self._process.wait()
        finally:
            self._process.terminate()  # where the demo was interrupted
            self._reader.join()
            self._process.communicate()
            self._directory.cleanup()

    def has_printed(self, text: str) -> bool:
        return any(text in line for line in self._printed)

    def _read(self) -> None:
        assert self._process.stdout
        for line in map(str.rstrip, self._process.stdout):
            self._printed.append(line)
            screen.say("ci", line, screen.COLORS["sent"])
