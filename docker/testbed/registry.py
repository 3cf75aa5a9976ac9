"""A registry in an engine's sandbox, on its loopback."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import bcrypt

from testbed.debian import unpacked
from testbed.sandbox import Sandbox, address_of, end, host_of
from testbed.server import Server
from testbed.token_server import TokenServer


class Registry(Server):
    """Debian's registry in a sandbox, at a port of the loopback or as one of the sandbox's HOSTS.

    It is open to all, or to `users` with passwords, or to those whom a token server lets in.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        at: int | str,
        users: Mapping[str, str] | None = None,
        *,
        tokens: TokenServer | None = None,
    ) -> None:
        self.host = host_of(at)
        self.users = dict(users or {})
        self._sandbox = sandbox
        self._at = at
        self._asks = users is not None  # also if it knows none yet
        self._tokens = tokens
        self._directory = sandbox.directory / f"registry-{at}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start on the images it had before, and wait until it listens."""
        address, port = address_of(self._at)
        self._directory.mkdir(exist_ok=True)
        self.know(self.users)
        configuration = self._directory / "config.yml"
        configuration.write_text(json.dumps(self._configuration(f"{address}:{port}")))  # JSON is YAML
        packages = unpacked()
        with (self._directory / "log").open("ab") as log:
            self._process = self._sandbox.popen(
                [packages.program("docker-registry"), "serve", configuration],
                env=packages.environment(),
                stdout=log,
                stderr=log,
            )
        self._sandbox.wait_for_port(port, self._process, address=address)

    def stop(self) -> None:
        """Stop; its images stay. Harmless when it is stopped already."""
        if self._process:
            end(self._process)

    def know(self, users: Mapping[str, str]) -> None:
        """Let these users in, and no others, from the next request on."""
        self.users = dict(users)
        written = self._passwords.with_suffix(".new")
        written.write_text("".join(f"{user}:{_hash(word)}\n" for user, word in users.items()))
        written.rename(self._passwords)

    @property
    def _passwords(self) -> Path:
        return self._directory / "htpasswd"

    def _configuration(self, address: str) -> dict[str, object]:
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._directory / "images")},
                "delete": {"enabled": True},
            },
            "http": {"addr": address},
        }
        if self._tokens:
            configuration["auth"] = {"token": self._tokens.configuration(self._directory)}
        elif self._asks:
            configuration["auth"] = {"htpasswd": {"realm": "testbed", "path": str(self._passwords)}}
        return configuration


def _hash(password: str) -> str:
    # The fewest rounds allowed: these passwords protect nothing.
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()
