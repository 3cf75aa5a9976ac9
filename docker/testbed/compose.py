"""Compose v2, from Debian's packages, on any engine."""

import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.debian import unpacked
from testbed.engine import Engine

Json = dict[str, Any]

#: Of Debian's suites, those with a Compose v2; each speaks to the engines of all of them.
SUITES = ("trixie", "forky")


class ComposeFailed(Exception):
    """Compose ended with an error; says how."""


class Compose:
    """A project with a name of its own: a compose file in a folder, and the variables in its .env.

    `overlays` are further files, each of which changes what those before it say.
    """

    def __init__(self, engine: Engine, suite: str, file: Path, *overlays: Path) -> None:
        packages = unpacked(suite if suite in SUITES else SUITES[-1])
        self.name = f"lookout-test-{secrets.token_hex(4)}"
        self.file = file
        self._files = [f"--file={one}" for one in (file, *overlays)]
        self._program = packages.program("docker-compose")
        # The person's own client configuration, with its contexts and passwords, stays out of this.
        self._environment = {
            "PATH": os.defpath,
            "DOCKER_HOST": engine.docker_host,
            "HOME": str(file.parent),
            "COMPOSE_ANSI": "never",
            "COMPOSE_PROGRESS": "plain",
        }

    def write(self, variables: Mapping[str, str]) -> None:
        """Give the variables of the compose file these values from now on."""
        lines = (f"{name}={value}\n" for name, value in variables.items())
        self.file.with_name(".env").write_text("".join(lines))

    def run(self, *arguments: str) -> str:
        """Run Compose on the project and return its output; raises ComposeFailed with what it said."""
        result = subprocess.run(
            [self._program, *self._files, f"--project-name={self.name}", *arguments],
            capture_output=True,
            text=True,
            cwd=self.file.parent,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            check=False,
            start_new_session=True,
        )
        if result.returncode:
            raise ComposeFailed(f"compose {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def up(self, *arguments: str) -> None:
        """Make the project what its file says, in the background."""
        self.run("up", "--detach", *arguments)

    def down(self) -> None:
        """Remove all of the project: containers, networks and volumes."""
        self.run("down", "--volumes", "--timeout=1")

    def ps(self) -> list[Json]:
        """The project's containers as Compose sees them, stopped ones too."""
        output = self.run("ps", "--all", "--no-trunc", "--format=json")
        return [json.loads(line) for line in output.splitlines()]

    def ids(self) -> dict[str, str]:
        """The ids of the project's containers by their names."""
        return {container["Name"]: container["ID"] for container in self.ps()}
