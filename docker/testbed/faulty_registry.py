"""A faulty line to a registry: it sees each request, and does wrong with those that a test chooses."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from testbed.inner_server import InnerServer, user_of
from testbed.sandbox import Sandbox, host_of

CHUNK = 64 * 1024
SLICES_PER_SECOND = 20
BLOBS = r"^GET \S+/blobs/"
MANIFESTS = r"^(GET|HEAD) \S+/manifests/"

# Each hop says these for itself.
_OF_THE_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"))


@dataclass(frozen=True)
class Asked:
    """A request that came: "GET /v2/acme/api/manifests/1", and who it said to be."""

    line: str
    authorization: str = field(default="", repr=False)

    @property
    def user(self) -> tuple[str, str] | None:
        """The name and password that it carried."""
        return user_of(self.authorization)

    @property
    def token(self) -> str:
        """The token that it carried, or nothing."""
        kind, _, value = self.authorization.partition(" ")
        return value if kind.lower() == "bearer" else ""


@dataclass
class _Fault:
    pattern: str
    remaining: float
    how: Literal["answer", "cut", "stall"]
    at: int = 0  # the byte of the body before which it happens
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def is_for(self, line: str) -> bool:
        return bool(self.remaining and re.search(self.pattern, line))


class FaultyRegistry(InnerServer):
    """A line to the registry at 127.0.0.1:`target` of the same sandbox.

    What is pushed to the registry and pulled by this line's host comes through the line. `requests` holds
    what was asked, in order. `rate` is how many bytes a second come through in all, or None; it may be
    changed at any time. Faults meet the first `times` requests from now on that match, or all of them; of
    several that fit, the one that was planned first happens.
    """

    def __init__(self, sandbox: Sandbox, at: int | str, target: int, *, rate: int | None = None) -> None:
        super().__init__(sandbox, at)
        self.requests: list[Asked] = []
        self.rate = rate
        self._target = f"http://{host_of(target)}"
        self._faults: list[_Fault] = []

    def refuse(
        self,
        pattern: str,
        status: int,
        *,
        times: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes = b"",
    ) -> None:
        """Answer with this, instead of the registry, what has a line that matches."""
        said = body.encode() if isinstance(body, str) else body
        self._plan(_Fault(pattern, _number(times), "answer", 0, status, headers or {}, said))

    def cut(self, pattern: str = BLOBS, *, at: int = 0, times: int | None = None) -> None:
        """Cut the connection before this byte of what is asked for; a part after it is cut at once."""
        self._plan(_Fault(pattern, _number(times), "cut", at))

    def stall(self, pattern: str = BLOBS, *, at: int = 0, times: int | None = None) -> None:
        """Say nothing more before this byte, and keep the connection; at 0 not even the head is said."""
        self._plan(_Fault(pattern, _number(times), "stall", at))

    def behave(self) -> None:
        """Plan no fault any more, and be as fast as the registry."""
        self._faults, self.rate = [], None

    async def serve(self, address: str, port: int) -> None:
        self._pace = asyncio.Lock()
        timeout = ClientTimeout(total=None)
        async with ClientSession(auto_decompress=False, timeout=timeout) as self._session:
            await super().serve(address, port)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(f"{request.method} {request.raw_path}", request.headers.get("Authorization", ""))
        self.requests.append(asked)
        fault = next((fault for fault in self._faults if fault.is_for(asked.line)), None)
        if fault and not fault.at:
            return await self._do(fault, request)
        if refusal := self.refusal(request):
            return refusal
        try:
            return await self._pass_on(request, fault)
        except (ClientError, ConnectionError):  # as one end of the line, so the other
            return _cut(request)

    def refusal(self, request: web.Request) -> web.Response | None:  # noqa: ARG002
        """The answer to what the registry must not be asked; of a mere line there is none."""
        return None

    async def _pass_on(self, request: web.Request, fault: _Fault | None) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            self._target + request.raw_path,
            headers=[(name, value) for name, value in request.headers.items() if _is_passed_on(name)],
            data=request.content if request.can_read_body else None,
            skip_auto_headers=("Accept", "User-Agent", "Content-Type"),
            allow_redirects=False,
        ) as told:
            headers = [(name, value) for name, value in told.headers.items() if _is_passed_on(name)]
            answer = web.StreamResponse(status=told.status, headers=headers)
            await answer.prepare(request)
            place = _first_byte(told.headers.get("Content-Range", ""))
            while data := await told.content.read(self._slice()):
                if fault and place + len(data) > fault.at and fault.remaining:
                    await answer.write(data[: max(0, fault.at - place)])
                    return await self._do(fault, request)
                await self._wait_for(len(data))
                await answer.write(data)
                place += len(data)
            return answer

    async def _do(self, fault: _Fault, request: web.Request) -> web.StreamResponse:
        fault.remaining -= 1
        match fault.how:
            case "stall":
                await asyncio.Event().wait()
            case "cut":
                return _cut(request)
        return web.Response(status=fault.status, headers=fault.headers, body=fault.body)

    def _slice(self) -> int:
        return min(CHUNK, max(1, self.rate // SLICES_PER_SECOND)) if self.rate else CHUNK

    async def _wait_for(self, size: int) -> None:
        if self.rate:
            # One slice at a time, so that parallel connections share the rate.
            async with self._pace:
                await asyncio.sleep(size / self.rate)

    def _plan(self, fault: _Fault) -> None:
        self._faults = [*self._faults, fault]


def _number(times: int | None) -> float:
    return float("inf") if times is None else times


def _cut(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()


def _is_passed_on(header: str) -> bool:
    return header.lower() not in _OF_THE_HOP


def _first_byte(content_range: str) -> int:
    """Where a part begins: "bytes 500-999/1000"."""
    begin = re.match(r"bytes (\d+)-", content_range)
    return int(begin[1]) if begin else 0
