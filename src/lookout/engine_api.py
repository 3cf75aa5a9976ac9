"""The Docker Engine's HTTP API: the only file that imports aiodocker.

Reference: Docker Engine API v1.41 to v1.51.
"""

import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import structlog
from aiodocker import Docker, DockerError

from lookout.errors import Conflict, EngineError, EngineUnavailable, NotFound, WrongSettings
from lookout.model import Json
from lookout.printable import discreet

ApiVersion = tuple[int, int]

# Later versions no longer tell which MAC address the user configured, and ignore it in create.
NEWEST_API: ApiVersion = (1, 51)
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
QUICK = 60.0  # seconds: calls that only read or write the engine's own state, on a slow disk

# aiodocker's own status where there was no HTTP answer, and those of a proxy without its engine.
_NO_ENGINE = (900, 502, 503, 504)
_SCHEMES = ("unix", "tcp", "http", "https", "ssh")
_LONGEST = 500  # characters of what an engine says

log = structlog.stdlib.get_logger(__name__)


class EngineApi:
    """Requests to one engine, all at one version of its API, with what goes wrong told in Lookout's own errors.

    `call` says in each what is asked for, as it is to stand in an error: "inspect container api". Timeouts
    are in seconds, None for none. Every request raises EngineUnavailable where the engine did not answer
    (it may have been done all the same), NotFound or Conflict for 404 and 409, and EngineError for
    another refusal.
    """

    def __init__(self, docker: Docker) -> None:
        self._docker = docker
        self._version: ApiVersion | None = None

    @classmethod
    @asynccontextmanager
    async def connect(cls) -> AsyncIterator["EngineApi"]:
        """The API of an engine as `Engine.connect` finds it, not yet called."""
        docker = _client()
        try:
            yield cls(docker)
        finally:
            await docker.close()

    @property
    def address(self) -> str:
        """Where the engine is, for log lines."""
        return discreet(str(self._docker._connection_info), longest=_LONGEST)

    async def version(self) -> ApiVersion:
        """The one API version for all calls: the newest that this engine and Lookout both know."""
        return self._version or await self.negotiate()

    async def negotiate(self) -> ApiVersion:
        """Ask the engine which versions it knows now: it may have been upgraded since."""
        try:
            answer = await self.call("tell its version", "version", versioned=False)
        except EngineUnavailable:
            self._version = None
            raise
        try:
            newest, oldest = _parsed(answer["ApiVersion"]), _parsed(answer.get("MinAPIVersion", "1.24"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise EngineUnavailable("tell its version", "what answers there is no Docker Engine") from None
        before, self._version = self._version, max(min(newest, NEWEST_API), oldest)
        self._docker.api_version = f"v{self._version[0]}.{self._version[1]}"
        if self._version != before:
            log.info("engine connected", engine=answer.get("Version"), api=self._docker.api_version)
        return self._version

    async def get_object(self, call: str, path: str) -> Json:
        """An object; EngineUnavailable is raised for any other answer."""
        return as_object(call, await self.call(call, path))

    async def get_list(self, call: str, path: str, *, params: dict[str, str] | None = None) -> list[Json]:
        """A list, where the engine says null instead of an empty one."""
        answer = await self.call(call, path, params=params)
        return [as_object(call, item) for item in answer] if isinstance(answer, list) else []

    async def post(
        self,
        call: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        data: Json | None = None,
        timeout: float | None = QUICK,
    ) -> object:
        """What the engine answers to a POST, or None."""
        body = json.dumps(data).encode() if data is not None else None
        return await self.call(call, path, method="POST", params=params, data=body, timeout=timeout)

    async def call(
        self,
        call: str,
        path: str,
        *,
        method: str = "GET",
        params: dict[str, str] | None = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = QUICK,
        versioned: bool = True,
    ) -> Any:
        """What the engine answers as JSON, or None."""
        async with self.request(
            call,
            method,
            path,
            params=params,
            data=data,
            headers=headers,
            timeout=timeout,
            versioned=versioned,
        ) as response:
            text = await response.read()
            return json.loads(text) if response.content_type == "application/json" and text else None

    @asynccontextmanager
    async def request(
        self,
        call: str,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = QUICK,
        versioned: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request, to be read within the block."""
        if versioned:
            await self.version()
        patience = aiohttp.ClientTimeout(total=timeout, connect=QUICK)
        try:
            async with self._docker._query(
                path,
                method,
                params=params,
                data=data,
                headers=headers,
                timeout=patience,
                versioned_api=versioned,
            ) as response:
                try:
                    yield response
                finally:
                    response.close()
        except DockerError as exc:
            error = _translated(call, exc)
            cause: Exception = exc
        except TimeoutError as exc:
            error, cause = EngineUnavailable(call, "no answer in time"), exc
        except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as exc:
            error, cause = EngineUnavailable(call, str(exc) or type(exc).__name__), exc
        else:
            return
        if versioned and isinstance(error, EngineUnavailable):
            self._version = None  # the engine that comes back may be another one
        raise error from cause


def as_object(call: str, answer: object) -> Json:
    """The answer, which has to be an object; raises EngineUnavailable where it is something else."""
    if not isinstance(answer, dict):
        raise EngineUnavailable(call, "what answers there is no Docker Engine")
    return answer


def _translated(call: str, exc: DockerError) -> EngineError | EngineUnavailable:
    if exc.status in _NO_ENGINE:
        return EngineUnavailable(call, discreet(exc.message, longest=_LONGEST))
    kind = {404: NotFound, 409: Conflict}.get(exc.status, EngineError)
    return kind(call, exc.status, discreet(exc.message, longest=_LONGEST))


def _client() -> Docker:
    """A client for the engine that the usual variables name, else the default socket."""
    host = os.environ.get("DOCKER_HOST") or None
    try:
        _check(host)
        if host and os.environ.get("DOCKER_TLS_VERIFY") and not host.startswith(("unix:", "ssh:")):
            return Docker("https://" + host.partition("://")[2], ssl_context=_tls())
        try:
            return Docker(host if host or _has_context() else DEFAULT_SOCKET)
        except AssertionError:  # no socket there yet: the engine may still be starting
            return Docker(DEFAULT_SOCKET)
    except (ValueError, OSError, ImportError, DockerError) as exc:
        raise WrongSettings([f"DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH: {exc}"]) from None


def _has_context() -> bool:
    """Whether Docker's current context can be followed.

    A config.json that is mounted for its logins may name an engine, or a socket, that is not here.
    """
    if os.environ.get("DOCKER_CONTEXT"):
        return True
    try:
        endpoint = Docker._get_docker_context_endpoint()
    except (DockerError, OSError, ValueError, RuntimeError, AttributeError, TypeError) as exc:
        log.warning(
            "Docker's current context is not followed",
            error=discreet(str(exc), longest=_LONGEST),
            engine=DEFAULT_SOCKET,
        )
        return False
    is_socket = endpoint is not None and endpoint.host.startswith("unix://")
    return endpoint is None or not is_socket or Path(endpoint.host.removeprefix("unix://")).exists()


def _check(host: str | None) -> None:
    url = urlsplit(host or DEFAULT_SOCKET)
    if url.scheme not in _SCHEMES or not (url.path if url.scheme == "unix" else url.hostname):
        raise ValueError(f"expected an address such as {DEFAULT_SOCKET} or tcp://host:2376")
    _ = url.port  # raises ValueError where that is no number


def _tls() -> ssl.SSLContext:
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def _parsed(text: str) -> ApiVersion:
    major, minor = text.split(".")
    return int(major), int(minor)


def in_path(key: str) -> str:
    """An id, a name or an image reference, as a part of a path."""
    return quote(key, safe="/:@")
