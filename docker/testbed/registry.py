"""A registry in an engine's sandbox, on its loopback."""

import json
import subprocess
from collections.abc import Mapping
from typing import Self

import bcrypt

from testbed.debian import unpacked
from testbed.sandbox import Sandbox, end


class Registry:
    """Debian's registry at 127.0.0.1:`port` of the sandbox, open to all or to `users` with passwords."""

    def __init__(self, sandbox: Sandbox, port: int, users: Mapping[str, str] | None = None) -> None:
        self.host = f"127.0.0.1:{port}"
        self.users = dict(users or {})
        self._sandbox = sandbox
        self._port = port
        self._directory = sandbox.directory / f"registry-{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start on the images it had before, and wait until it listens."""
        self._directory.mkdir(exist_ok=True)
        configuration = self._directory / "config.yml"
        configuration.write_text(json.dumps(self._configuration()))  # JSON is YAML
        packages = unpacked()
        with (self._directory / "log").open("ab") as log:
            self._process = self._sandbox.popen(
                [packages.program("docker-registry"), "serve", configuration],
                env=packages.environment(),
                stdout=log,
                stderr=log,
            )
        self._sandbox.wait_for_port(self._port, self._process)

    def stop(self) -> None:
        """Stop; its images stay. Harmless when it is stopped already."""
        if self._process:
            end(self._process)

    def _configuration(self) -> dict[str, object]:
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._directory / "images")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.host},
        }
        if self.users:
            passwords = self._directory / "htpasswd"
            passwords.write_text("".join(f"{user}:{_hash(word)}\n" for user, word in self.users.items()))
            configuration["auth"] = {"htpasswd": {"realm": "testbed", "path": str(passwords)}}
        return configuration


def _hash(password: str) -> str:
    # The fewest rounds allowed: these passwords protect nothing.
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()
