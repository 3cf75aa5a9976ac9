"""The engine half of `lookout check`: which containers are managed, and can their images be had?"""

import asyncio
import errno
import grp
import os
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from lookout.engine import Engine
from lookout.engine_api import DEFAULT_SOCKET
from lookout.errors import EngineError, EngineUnavailable, PullFailed, PullFault
from lookout.findings import Finding, ok, problem, remark
from lookout.model import ImageRef
from lookout.names import reference_of
from lookout.planner import Planner
from lookout.puller import Puller
from lookout.targets import Target

REGISTRIES = 8  # questions to registries at the same time

_WANTS_TLS = "HTTP request to an HTTPS server"  # what Docker's own server says to a client without
_MOUNT = (
    "mount it into Lookout's container (-v /var/run/docker.sock:/var/run/docker.sock), or set DOCKER_HOST"
)


class EngineCheck:
    """Looks with the eyes of the daemon; changes nothing."""

    def __init__(self, engine: Engine, planner: Planner, puller: Puller) -> None:
        self._engine = engine
        self._planner = planner
        self._puller = puller

    async def findings(self) -> list[Finding]:
        """What the engine is, which containers Lookout would replace and why not the others, and their registries."""
        try:
            major, minor = await self._engine.negotiate()
            version = (await self._engine.info()).get("ServerVersion", "of an unknown version")
            targets = await self._planner.everything()
        except EngineUnavailable as exc:
            return [_unavailable(self._engine.address, exc)]
        except EngineError as exc:
            next_step = "check DOCKER_HOST; a proxy before the engine must let through all calls of Lookout"
            return [problem("engine", f"{self._engine.address}: {exc}", next_step)]
        engine = ok("engine", f"Docker Engine {version}, API {major}.{minor}, at {self._engine.address}")
        return [engine, *_containers(targets), *await self._registries(targets)]

    async def _registries(self, targets: Sequence[Target]) -> list[Finding]:
        few = asyncio.Semaphore(REGISTRIES)

        async def ask(image: ImageRef) -> Finding:
            async with few:
                return await self._registry(image)

        return await asyncio.gather(*map(ask, _images(targets)))

    async def _registry(self, image: ImageRef) -> Finding:
        """Whether the registry shows this tag to the credentials that a pull would use."""
        try:
            await self._puller.digest(image)
        except PullFailed as exc:
            if await self._was_made_here(image):
                text = f"{image} was made on this host, and its registry does not show it: {exc.message}"
                return remark("registry", text, "push it there, if it is to be deployed")
            return _refused(image, exc)
        return ok("registry", f"{image.name.domain} shows {image}")

    async def _was_made_here(self, image: ImageRef) -> bool:
        """An image that was pulled or pushed has a digest there; with the containerd store each one has."""
        try:
            return not (await self._engine.image(image.canonical)).get("RepoDigests")
        except (EngineError, EngineUnavailable):
            return False


def managed(targets: Sequence[Target]) -> list[str]:
    """Those that Lookout replaces, with their images."""
    return [f"{one.name} ({reference_of(one.container)})" for one in targets if not one.left_alone]


def left_alone(targets: Sequence[Target]) -> list[str]:
    """The others, with the reason."""
    return [f"{one.name} {one.left_alone}" for one in targets if one.left_alone]


def _containers(targets: Sequence[Target]) -> Iterator[Finding]:
    for name in managed(targets):
        yield ok("container", f"{name} is replaced when its image is deployed")
    for reason in left_alone(targets):
        yield remark("container", f"{reason}: left alone")
    if not managed(targets):
        yield remark(
            "container", "none that runs here would be replaced", "start those that are to be deployed"
        )


def _images(targets: Sequence[Target]) -> list[ImageRef]:
    """The distinct ones of managed containers, by name and tag."""
    named = [one.reference for one in targets if one.reference and not one.left_alone]
    images = {ImageRef(one.name, one.tag) for one in named if one.tag}
    return sorted(images, key=str)


def _refused(image: ImageRef, failed: PullFailed) -> Finding:
    text = f"{image}, asked with {failed.source}: {failed.message}"
    match failed.fault:
        case PullFault.NOT_FOUND:
            return remark(
                "registry", f"no such tag: {text}", "fine, if it was removed there after its deploy"
            )
        case PullFault.THROTTLED:
            return remark("registry", f"asked too often: {text}", failed.hint)
        case PullFault.CREDENTIALS:
            return problem("registry", f"no access: {text}", failed.hint)
        case PullFault.TRANSIENT:
            return problem("registry", f"no answer: {text}", failed.hint)
        case _:
            return problem("registry", text, failed.hint)


def _unavailable(address: str, error: EngineUnavailable) -> Finding:
    said = f"{address}: {error.message}"
    behind = list(_causes(error))
    if any(isinstance(one, ssl.SSLError) for one in behind) or _WANTS_TLS in error.message:
        return problem("engine", said, "check DOCKER_TLS_VERIFY, and the certificates in DOCKER_CERT_PATH")
    # Not before those of TLS, whose numbers are their own.
    if any(isinstance(one, OSError) and one.errno in (errno.EACCES, errno.EPERM) for one in behind):
        return _forbidden(address)
    path = _socket(address)
    if path and not path.exists():
        return problem("engine", f"{address}: no socket there", _MOUNT)
    next_step = f"start the engine, or set DOCKER_HOST; unset, it is {DEFAULT_SOCKET}"
    return problem("engine", said, next_step)


def _forbidden(address: str) -> Finding:
    """The usual case: the socket is for a group that Lookout's user is not in."""
    path, text = _socket(address), f"{address}: permission denied for the user {os.getuid()}"
    try:
        group = path.stat().st_gid if path else None
    except OSError:
        group = None
    if group is None:
        return problem("engine", text, "let that user through to the socket, by all folders above it")
    next_step = (
        f'give Lookout\'s container that group, by --group-add {group}, or group_add: ["{group}"] in Compose'
    )
    return problem("engine", f"{text}; the socket is for the group {_named(group)}", next_step)


def _named(group: int) -> str:
    try:
        return f"{grp.getgrgid(group).gr_name} ({group})"
    except KeyError:
        return str(group)


def _socket(address: str) -> Path | None:
    return Path(address.removeprefix("unix://")) if address.startswith("unix://") else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those behind it."""
    while error:
        yield error
        error = error.__cause__ or error.__context__
