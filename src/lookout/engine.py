"""The Docker Engine, as Lookout uses it."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import structlog
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from lookout.credentials import Credentials
from lookout.engine_api import ApiVersion, EngineApi, as_object, in_path
from lookout.errors import EngineError, EngineUnavailable, NotFound
from lookout.model import ImageRef, Json
from lookout.platforms import as_json, fits, platform_of_engine, platform_of_image
from lookout.streams import below, frames

# From this one on an image can be inspected as that of one platform of several.
INSPECTS_PLATFORMS: ApiVersion = (1, 49)
REMOVE_IMAGE = 300.0  # seconds: its layers are deleted from the disk
CREATE = 300.0  # seconds: create copies files of the image into new volumes
START = 120.0  # seconds: networks, mounts and plugins are attached
IMAGES_CHANGE = 3.0  # seconds in which a list of images that others change must come about
LISTEN = 5.0  # seconds: until the engine begins to tell events
REGISTRY = 20.0  # seconds: one question to a registry, through the engine
STOP_MARGIN = 60.0  # seconds that the engine may need beyond the container's own stop timeout
ENGINE_STOP_TIMEOUT = 10  # seconds: the engine's default where the container has none

LOG_TAIL = 8192  # bytes of a container's log that are kept
WITHOUT_EVENTS = 0.5  # seconds between two looks where there are none
#: After these the state of a container may be another one.
STATE_EVENTS = [
    "start",
    "die",
    "oom",
    "stop",
    "kill",
    "pause",
    "unpause",
    "rename",
    "destroy",
    "health_status",
]

log = structlog.stdlib.get_logger(__name__)


class Engine:
    """The calls that Lookout makes, each with a deadline that fits what it does.

    Only the stop of a container that may take for ever, by its own timeout, has none.

    Every method raises EngineUnavailable where the engine did not answer (the call may have been
    done all the same), NotFound or Conflict for 404 and 409, and EngineError for another refusal.
    """

    def __init__(self, api: EngineApi) -> None:
        self._api = api

    @classmethod
    @asynccontextmanager
    async def connect(cls) -> AsyncIterator["Engine"]:
        """An engine as DOCKER_HOST, DOCKER_CONTEXT and the TLS variables name it, not yet called.

        Else that of Docker's current context, if it can be here, or the default socket.

        Raises WrongSettings where those cannot be used.
        """
        async with EngineApi.connect() as api:
            yield cls(api)

    @property
    def address(self) -> str:
        """Where the engine is, for log lines."""
        return self._api.address

    async def api(self) -> ApiVersion:
        """The one API version for all calls: the newest that this engine and Lookout both know."""
        return await self._api.version()

    async def negotiate(self) -> ApiVersion:
        """Ask the engine which versions it knows now: it may have been upgraded since."""
        return await self._api.negotiate()

    async def ping(self, *, within: float) -> None:
        """Ask whether it is there, which costs it next to nothing.

        Where it does not say so in time it may be busy: that changes nothing for the other calls.
        """
        await self._api.call("say that it is there", "_ping", timeout=within, versioned=False)

    async def info(self) -> Json:
        return await self._api.get_object("describe itself", "info")

    async def platform(self) -> str:
        """The platform that the engine itself runs on, such as linux/amd64."""
        return platform_of_engine(await self.info())

    async def containers(self, *labels: str, every: bool = False) -> list[str]:
        """Ids of the containers that run, restart or are paused, or of `every` one, with all `labels`."""
        filters = {"label": labels} if labels else {}
        params = {"all": str(every).lower(), "filters": json.dumps(filters)}
        return [
            c["Id"] for c in await self._api.get_list("list containers", "containers/json", params=params)
        ]

    async def listed(self) -> list[Json]:
        """All containers, also those that do not run, as the engine lists them: with state and labels."""
        return await self._api.get_list("list containers", "containers/json", params={"all": "true"})

    async def networks(self) -> dict[str, str]:
        """Names of all networks, by id."""
        return {n["Id"]: n["Name"] for n in await self._api.get_list("list networks", "networks")}

    async def container(self, key: str) -> Json:
        """Inspect one container, by id or name."""
        return await self._api.get_object(f"inspect container {key}", f"containers/{in_path(key)}/json")

    async def find(self, key: str) -> Json | None:
        """Inspect one container, by id or name; None where there is none."""
        try:
            return await self.container(key)
        except NotFound:
            return None

    async def image(self, key: str, platform: str = "") -> Json:
        """Inspect one image, by id or reference; of one for several platforms, what it is for `platform`.

        Its id stays the one that its containers have, which is that of all platforms together. Where it is
        not for that platform, it is shown for what it is.
        """
        call, path = f"inspect image {key}", f"images/{in_path(key)}/json"
        found = await self._api.get_object(call, path)
        if fits(platform_of_image(found), platform) or await self.api() < INSPECTS_PLATFORMS:
            return found
        try:
            params = {"platform": json.dumps(as_json(platform))}
            return as_object(call, await self._api.call(call, path, params=params)) | {"Id": found["Id"]}
        except NotFound:
            return found

    async def images(self) -> list[Json]:
        """All images, as the engine lists them: also those without a name, and those that others build on.

        An engine with the containerd image store answers 404 while some image is being removed: it is asked
        again for a moment.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(NotFound),
            stop=stop_after_delay(IMAGES_CHANGE),
            wait=wait_fixed(0.1),
        )
        try:
            return await retrying(self._api.get_list, "list images", "images/json", params={"all": "true"})
        except RetryError as exc:
            raise EngineUnavailable("list images", "they change all the time") from exc

    async def remove_image(self, key: str) -> None:
        """Take a name from an image, or remove the image with this id; its layers go with its last name.

        Never by force: one that is in use stays, and Conflict is raised.
        """
        path = f"images/{in_path(key)}"
        await self._api.call(f"remove image {key}", path, method="DELETE", timeout=REMOVE_IMAGE)

    async def registry_digest(self, image: ImageRef, credentials: Credentials | None) -> str:
        """The digest that the registry has under this tag now; nothing is pulled."""
        answer = await self._api.call(
            f"ask the registry for {image}",
            f"distribution/{in_path(image.canonical)}/json",
            headers=_registry_auth(image, credentials),
            timeout=REGISTRY,
        )
        return str(as_object(f"ask the registry for {image}", answer)["Descriptor"]["digest"])

    async def changes(self, container: str) -> list[Json]:
        """Files that the container's own layer adds, changes or deletes."""
        path = f"containers/{in_path(container)}/changes"
        return await self._api.get_list(f"list changed files of {container}", path)

    async def stat(self, container: str, path: str) -> Json | None:
        """Name, size, mode (as Go has it) and mtime of a file in a container; None if it is not there.

        Not by HEAD: its refusals have no text, and aiodocker cannot do without one.
        """
        call, url = f"look at {path} of {container}", f"containers/{in_path(container)}/archive"
        try:
            async with self._api.request(call, "GET", url, params={"path": path}) as response:
                told = response.headers["X-Docker-Container-Path-Stat"]
                return as_object(call, json.loads(base64.b64decode(told)))
        except NotFound:
            return None

    async def create(self, name: str, body: Json, platform: str = "") -> str:
        """Create a container, for a platform if one is named, and return its id; warnings are logged."""
        answer = await self._api.post(
            f"create container {name}",
            "containers/create",
            params={"name": name} | ({"platform": platform} if platform else {}),
            data=body,
            timeout=CREATE,
        )
        answer = as_object(f"create container {name}", answer)
        for warning in answer.get("Warnings") or ():
            log.warning("the engine warns about the new container", container=name, warning=warning)
        return str(answer["Id"])

    async def attach(self, network: str, container: str, endpoint: Json) -> None:
        data = {"Container": container, "EndpointConfig": endpoint}
        path = f"networks/{in_path(network)}/connect"
        await self._api.post(f"connect {container} to network {network}", path, data=data)

    async def detach(self, network: str, container: str) -> None:
        data = {"Container": container, "Force": False}
        path = f"networks/{in_path(network)}/disconnect"
        await self._api.post(f"disconnect {container} from network {network}", path, data=data)

    async def copy_files(self, source: str, target: str, path: str) -> None:
        """Copy a file or folder from one container's file system into another's, owners and modes kept.

        The folders above it are made where the target's image does not have them.
        """
        async with self._api.request(
            f"read {path} of {source}", "GET", f"containers/{in_path(source)}/archive", params={"path": path}
        ) as response:
            archive = await response.read()
        await self._api.call(
            f"write {path} into {target}",
            f"containers/{in_path(target)}/archive",
            method="PUT",
            params={"path": "/"},
            data=below(str(Path(path).parent), archive),
            headers={"Content-Type": "application/x-tar"},
        )

    async def started(self) -> str:
        """When this engine was started, by its own clock; empty where that cannot be told.

        The default bridge is made anew at each start, after what ran before was stopped. With live-restore
        it is not, but then no container ends with its engine.
        """
        networks = await self._api.get_list("list networks", "networks")
        return next((str(one.get("Created") or "") for one in networks if one["Name"] == "bridge"), "")

    async def set_restart_policy(self, container: str, policy: Json) -> None:
        path = f"containers/{in_path(container)}/update"
        await self._api.post(f"update {container}", path, data={"RestartPolicy": policy})

    async def start(self, container: str) -> None:
        """Start a container; one that runs already is left as it is."""
        await self._api.post(f"start {container}", f"containers/{in_path(container)}/start", timeout=START)

    async def stop(
        self, container: str, *, own_timeout: int | None = None, within: int | None = None
    ) -> None:
        """Stop a container by its own signal; returns when it has exited.

        `own_timeout` is the container's own (seconds, None for the engine's default, negative for
        ever): the engine keeps to it by itself, the call only has to wait longer. `within` overrules
        it; 0 kills at once.
        """
        expected = own_timeout if own_timeout is not None else ENGINE_STOP_TIMEOUT
        if within is not None:
            expected = within
        await self._api.post(
            f"stop {container}",
            f"containers/{in_path(container)}/stop",
            params=None if within is None else {"t": str(within)},
            timeout=None if expected < 0 else expected + STOP_MARGIN,
        )

    async def rename(self, container: str, name: str) -> None:
        path = f"containers/{in_path(container)}/rename"
        await self._api.post(f"rename {container} to {name}", path, params={"name": name})

    async def remove(self, container: str, *, volumes: bool = False, force: bool = False) -> None:
        """Remove a container; its anonymous volumes too only if `volumes`."""
        await self._api.call(
            f"remove {container}",
            f"containers/{in_path(container)}",
            method="DELETE",
            params={"v": str(int(volumes)), "force": str(int(force))},
        )

    async def log_tail(self, container: str, *, lines: int = 50) -> str:
        """The last lines that a container wrote, 8 KiB of them at most."""
        params = {"stdout": "true", "stderr": "true", "tail": str(lines)}
        path = f"containers/{in_path(container)}/logs"
        async with self._api.request(f"read the log of {container}", "GET", path, params=params) as response:
            raw = await response.read()
        tty = (await self.container(container))["Config"].get("Tty")
        return (raw if tty else b"".join(frames(raw)))[-LOG_TAIL:].decode(errors="replace")

    @asynccontextmanager
    async def output(self, container: str) -> AsyncIterator[Callable[[], str]]:
        """A function that returns the last of what a container writes from now on, 8 KiB at most.

        For one whose log goes with it. Where it cannot be had, that is nothing.
        """
        heard, listening = bytearray(), asyncio.Event()
        task = asyncio.create_task(self._hear(container, heard, listening))
        waiting = asyncio.create_task(listening.wait())
        try:
            await asyncio.wait({task, waiting}, timeout=LISTEN, return_when=asyncio.FIRST_COMPLETED)
            yield lambda: heard.decode(errors="replace")
        finally:
            task.cancel()
            waiting.cancel()
            await asyncio.gather(task, waiting, return_exceptions=True)

    async def _hear(self, container: str, heard: bytearray, listening: asyncio.Event) -> None:
        tty = (await self.container(container))["Config"].get("Tty")
        path, params = (
            f"containers/{in_path(container)}/attach",
            {"stream": "1", "stdout": "1", "stderr": "1"},
        )
        async with self._api.request(
            f"listen to {container}", "POST", path, params=params, timeout=None
        ) as response:
            listening.set()
            while True:
                size = int.from_bytes((await response.content.readexactly(8))[4:]) if not tty else 0
                said = await (response.content.readexactly(size) if size else response.content.readany())
                if not said:
                    return
                heard += said
                del heard[:-LOG_TAIL]

    @asynccontextmanager
    async def changes_of_state(self, container: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """A function that waits for the next event in the life of a container, so many seconds at most.

        Where the engine, or a proxy before it, does not tell events, it waits for a moment instead.
        """
        filters = {"type": ["container"], "container": [container], "event": STATE_EVENTS}
        call, params = f"watch {container}", {"filters": json.dumps(filters)}
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(
                    LISTEN
                ):  # to answer; then it may be silent for as long as it likes
                    request = self._api.request(call, "GET", "events", params=params, timeout=None)
                    response = await stack.enter_async_context(request)
            except (EngineError, EngineUnavailable, TimeoutError) as exc:
                error = str(exc) or "no answer in time"
                log.warning("the engine tells no events; looking every moment instead", error=error)
                yield lambda seconds: asyncio.sleep(min(seconds, WITHOUT_EVENTS))
                return

            async def changed(seconds: float) -> None:
                pause = min(seconds, WITHOUT_EVENTS)
                with suppress(TimeoutError, aiohttp.ClientError, OSError):
                    async with asyncio.timeout(seconds):
                        if await response.content.readany():
                            return
                # Engine, or proxy before it, has ended it: the next look says which.
                if response.content.at_eof() or response.content.exception():
                    await asyncio.sleep(pause)

            yield changed

    async def tag(self, source: str, image: ImageRef) -> None:
        await self._api.post(
            f"tag {source} as {image}",
            f"images/{in_path(source)}/tag",
            params={"repo": image.name.canonical, "tag": image.tag},
        )

    async def pull(
        self,
        image: ImageRef,
        digest: str | None,
        credentials: Credentials | None,
        note: Callable[[Json], None],
        platform: str = "",
    ) -> None:
        """Pull `image`, by digest where one is given, and call `note` with each line that the engine tells.

        It may be silent for as long as it likes. Raises EngineError also for what the engine reports in the
        stream of an answer that began with 200, and EngineUnavailable for a stream that ends in the middle.
        """
        params = {"fromImage": image.name.canonical, "tag": digest or image.tag}
        if platform:
            params["platform"] = platform
        call, headers = f"pull {image}", _registry_auth(image, credentials)
        async with self._api.request(
            call, "POST", "images/create", params=params, headers=headers, timeout=None
        ) as response:
            while line := await response.content.readline():
                told = as_object(call, json.loads(line))
                if error := told.get("error"):
                    raise EngineError(call, response.status, str(error))
                note(told)


def _registry_auth(image: ImageRef, credentials: Credentials | None) -> dict[str, str]:
    return {"X-Registry-Auth": credentials.header(image.name.domain)} if credentials else {}
