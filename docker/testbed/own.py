"""Which engine to use: the person's own if there is one, else a private one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.debian import unpacked
from testbed.engine import USUAL_SOCKET, DockerFailed, Engine, PrivateEngine


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine at DOCKER_HOST; else the one at the usual socket, if it answers; else a private one."""
    if host := os.environ.get("DOCKER_HOST"):
        yield _persons(host)
    elif USUAL_SOCKET.exists() and _answers(usual := _persons(f"unix://{USUAL_SOCKET}")):
        yield usual
    else:
        with PrivateEngine() as private:
            yield private


def _persons(host: str) -> Engine:
    if program := shutil.which("docker"):
        return Engine(host, Path(program), os.environ)
    packages = unpacked()
    return Engine(host, packages.program("docker"), {**os.environ, **packages.environment()})


def _answers(candidate: Engine) -> bool:
    try:
        return bool(candidate.docker("version", "--format", "{{.Server.Version}}"))
    except DockerFailed:
        return False
