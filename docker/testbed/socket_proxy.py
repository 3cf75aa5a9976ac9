"""The socket proxy that the project recommends, before an engine of the test bed."""

import re
import secrets
import subprocess
from pathlib import Path

from testbed.debian import unpacked
from testbed.sandbox import Sandbox, end, listens, wait_until
from testbed.server import Server

CONFIGURATION = Path(__file__).parents[1] / "socket-proxy.cfg"


class SocketProxy(Server):
    """Debian's HAProxy in a sandbox, with the project's own configuration, before the socket of an engine.

    It listens at `docker_host`.
    """

    def __init__(self, sandbox: Sandbox, engine: Path) -> None:
        self._sandbox = sandbox
        self._engine = engine
        name = sandbox.directory / secrets.token_hex(4)
        self.socket = name.with_suffix(".sock")
        self.docker_host = f"unix://{self.socket}"
        self._log = name.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        packages = unpacked()
        with self._log.open("ab") as log:
            self._process = self._sandbox.popen(
                [packages.program("haproxy"), "-db", "-f", CONFIGURATION],
                env=packages.environment()
                | {
                    "SOCKET_PROXY_LISTEN": f"unix@{self.socket}",
                    "SOCKET_PROXY_ENGINE": str(self._engine),
                    "SOCKET_PROXY_LOG": "info",
                },
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: listens(self.socket), self._process, self._log)

    def stop(self) -> None:
        """Stop, cutting what is under way. Harmless when it is stopped already."""
        if self._process:
            end(self._process)

    @property
    def passed(self) -> list[str]:
        """The calls that the engine has begun to answer, as METHOD and path with query."""
        return self._logged("engine")

    @property
    def refused(self) -> list[str]:
        """Those that it never saw."""
        return self._logged("refusal")

    def _logged(self, backend: str) -> list[str]:
        return re.findall(rf"^-?[0-9]+ {backend} (.*)$", self._log.read_text(), re.MULTILINE)
