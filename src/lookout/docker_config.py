"""Docker's own configuration, config.json, as `docker login` writes it.

Reference: github.com/docker/cli, cli/config; the protocol of helpers: github.com/docker/docker-credential-helpers.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lookout.credentials import Credentials, address_of, registry_of
from lookout.errors import CredentialsMissing
from lookout.model import Json

HELPER = 30.0  # seconds that a credential helper gets: it may ask its own server
PROGRAM = "docker-credential-"
#: What a helper says as user name where the secret is an identity token.
TOKEN_USER = "<token>"  # noqa: S105  the word itself is no secret
_NOT_FOUND = b"credentials not found in native keychain"


def folder() -> Path | None:
    """DOCKER_CONFIG, else `.docker` in the home folder; None without either."""
    if given := os.environ.get("DOCKER_CONFIG"):
        return Path(given)
    try:
        return Path.home() / ".docker"
    except RuntimeError:  # a user without a home
        return None


class DockerConfig:
    """config.json in a folder, read anew at each look: a login counts at once, however the file was written."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / "config.json" if folder else None

    async def find(self, registry: str) -> Credentials | None:
        """By the helper that is set for the registry, or for all; else as they stand in the file."""
        config = self._read()
        helper = _for(registry, config.get("credHelpers"))
        helper = config.get("credsStore") if helper is None else helper
        try:
            found = await self._ask(helper, registry) if helper and isinstance(helper, str) else None
        except CredentialsMissing:
            if plain := self._plain(registry, config):
                return plain
            raise
        return found or self._plain(registry, config)

    def _read(self) -> Json:
        if self._path is None:
            return {}
        try:
            config = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise CredentialsMissing(f"{self._path} cannot be read: {exc.strerror}") from exc
        except (ValueError, RecursionError) as exc:
            raise CredentialsMissing(f"{self._path} is not JSON; `docker login` writes it anew") from exc
        if not isinstance(config, dict):
            raise CredentialsMissing(f"{self._path} is not an object; `docker login` writes it anew")
        return config

    def _plain(self, registry: str, config: Json) -> Credentials | None:
        entry = _for(registry, config.get("auths"))
        if not isinstance(entry, dict):
            return None
        try:
            username, password = _decoded(entry["auth"]) if entry.get("auth") else ("", "")
        except ValueError:
            raise CredentialsMissing(
                f"`auth` of {registry} in {self._path} is not NAME:PASSWORD in base64; `docker login` writes it anew"
            ) from None
        found = Credentials(
            str(self._path),
            username or str(entry.get("username") or ""),
            password or str(entry.get("password") or ""),
            str(entry.get("identitytoken") or ""),
            str(entry.get("registrytoken") or ""),
        )
        has_some = found.password or found.identity_token or found.registry_token
        return found if has_some else None

    async def _ask(self, helper: str, registry: str) -> Credentials | None:
        """What a credential helper says; never shown, not even where it is an error."""
        name = PROGRAM + helper
        program = shutil.which(name)
        if program is None:
            raise CredentialsMissing(
                f"{self._path} leaves the credentials of {registry} to {name}, which is not to be found here; "
                "put it on Lookout's PATH, or give credentials in another way"
            )
        try:
            code, said = await _run(program, address_of(registry))
            if code == 0:
                return _told(json.loads(said), name)
        except (OSError, ValueError, TypeError, KeyError, TimeoutError) as exc:
            why = "did not answer in time" if isinstance(exc, TimeoutError) else "gave no sensible answer"
        else:
            if _NOT_FOUND in said:
                return None
            why = f"ended with exit code {code}"
        raise CredentialsMissing(
            f"{name} {why} for {registry}; see `echo {address_of(registry)} | {name} get` beside Lookout"
        )


async def _run(program: str, address: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *(program, "get"),
        start_new_session=True,  # a group, so that all of it can be killed
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(HELPER):
            said, _ = await process.communicate(address.encode())
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return await process.wait(), said


def _told(answer: Json, name: str) -> Credentials | None:
    username, secret = str(answer["Username"]), str(answer["Secret"])
    if not secret:
        return None
    if username == TOKEN_USER:
        return Credentials(name, identity_token=secret)
    return Credentials(name, username, secret)


def _for(registry: str, entries: object) -> Any:
    """The entry whose key means this registry; one that spells it out goes before those that mean it."""
    known: Json = entries if isinstance(entries, dict) else {}
    keys = sorted(_meaning(registry, known), key=lambda key: key != address_of(registry))
    return next((known[key] for key in keys), None)


def _meaning(registry: str, entries: Json) -> Iterator[str]:
    return (key for key in entries if registry_of(key) == registry.lower())


def _decoded(auth: object) -> tuple[str, str]:
    if not isinstance(auth, str):
        raise ValueError("no text")  # noqa: TRY004  as for any other wrong value
    name, colon, password = base64.b64decode("".join(auth.split()), validate=True).decode().partition(":")
    if not colon:
        raise ValueError("no colon")
    return name, password.strip("\x00")
