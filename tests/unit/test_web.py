"""The two pages, asked over a real connection."""

import asyncio
import io
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus

import aiohttp
import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.ports import free_port

from lookout import web
from lookout.chosen import LogFormat, LogLevel
from lookout.errors import WrongSettings
from lookout.log import configure
from lookout.model import ContainerReport, Outcome, Report
from lookout.vitals import Vitals

LOOPBACK = "127.0.0.1"


class Asked:
    """The pages of these vitals."""

    def __init__(self, vitals: Vitals, port: int, session: aiohttp.ClientSession) -> None:
        self.vitals = vitals
        self.port = port
        self._session = session

    async def __call__(self, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
        async with self._session.request(method, f"http://{LOOPBACK}:{self.port}{path}") as answer:
            return answer.status, await answer.text(), dict(answer.headers)

    async def numbers(self) -> dict[str, float]:
        """Each line of /metrics by its name and labels, as Prometheus itself reads it."""
        _, text, _ = await self("/metrics")
        return {
            sample.name
            + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def raw(self, request: bytes) -> str:
        """The whole answer; empty where the connection is only ended."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            writer.write(request)
            return (await reader.read()).decode()
        except ConnectionError:
            return ""
        finally:
            writer.close()


def make_well(vitals: Vitals) -> None:
    vitals.engine_answered()
    with vitals.polling():
        pass


@pytest.fixture
async def ask() -> AsyncIterator[Asked]:
    vitals, port = Vitals(), free_port()
    async with web.serving(vitals, LOOPBACK, port), aiohttp.ClientSession() as session:
        yield Asked(vitals, port, session)


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as events:
        yield events


async def test_health_is_ok_or_the_reason_in_one_line(ask: Asked) -> None:
    status, text, _ = await ask("/healthz")
    assert (status, text) == (503, "starting: the engine has not answered yet\n")
    make_well(ask.vitals)
    status, text, headers = await ask("/healthz")
    assert (status, text) == (200, "ok\n")
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"].startswith("text/plain")
    for _ in range(3):
        ask.vitals.engine_failed("away\nfor long")
    assert await status_and_text(ask) == (503, "away for long\n")


async def status_and_text(ask: Asked) -> tuple[int, str]:
    status, text, _ = await ask("/healthz")
    return status, text


async def test_a_query_is_of_no_interest(ask: Asked) -> None:
    make_well(ask.vitals)
    assert (await ask("/healthz?verbose=1"))[0] == HTTPStatus.OK


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
async def test_head_is_get_without_the_body(ask: Asked, path: str) -> None:
    make_well(ask.vitals)
    status, text, headers = await ask(path, "HEAD")
    assert (status, text) == (200, "")
    assert headers["Content-Length"] == (await ask(path))[2]["Content-Length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
async def test_nothing_but_reading_is_allowed(ask: Asked, path: str, method: str) -> None:
    status, _, headers = await ask(path, method)
    assert status == HTTPStatus.METHOD_NOT_ALLOWED
    assert headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/", "/healthz/", "/metrics/..", "//healthz", "/deploy", "/%00", "/x" * 1000]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_there_is_nothing_else(ask: Asked, path: str, method: str) -> None:
    assert (await ask(path, method))[0] == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"GET /nowhere HTTP/1.0\r\n\r\n",
        b"POST /healthz HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01 what is this\r\n\r\n",
        b"GET " + b"/x" * 10_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["health", "metrics", "nowhere", "post", "no HTTP", "long"],
)
async def test_no_answer_tells_which_programs_are_behind_it(ask: Asked, request_: bytes) -> None:
    head = (await ask.raw(request_)).partition("\r\n\r\n")[0]
    assert head.startswith("HTTP/1.")
    assert "\r\nserver:" not in head.lower()
    assert "aiohttp" not in head.lower()
    assert "python" not in head.lower()


async def test_requests_are_logged_at_debug_level_only(ask: Asked, logs: list[EventDict]) -> None:
    for path in ("/healthz", "/metrics", "/nowhere"):
        await ask(path)
    await ask("/healthz", "POST")
    assert {event["log_level"] for event in logs} == {"debug"}


async def test_the_server_below_says_nothing_of_requests_good_or_bad(
    ask: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    out = io.StringIO()
    configure(LogLevel.DEBUG, LogFormat.JSON, out)
    with caplog.at_level(logging.DEBUG):
        await ask("/healthz")
        for nonsense in (b"GET / HTTP/1.0\r\n: \r\n\r\n", b"\x16\x03\r\n\r\n"):
            assert " 400 " in await ask.raw(nonsense)
    assert {json.loads(line)["event"] for line in out.getvalue().splitlines()} == {"request"}


async def test_a_fault_of_its_own_is_said_in_the_log_and_nowhere_else(
    ask: Asked, logs: list[EventDict]
) -> None:
    def fail() -> str:
        raise RuntimeError("hunter2")

    ask.vitals.problem = fail  # type: ignore[method-assign]
    for path in ("/healthz", "/metrics"):
        status, text, _ = await ask(path)
        assert status == HTTPStatus.INTERNAL_SERVER_ERROR
        assert "hunter2" not in text
    assert [event["log_level"] for event in logs if event["log_level"] != "debug"] == ["error"] * 2


# Metrics


async def test_metrics_are_read_by_prometheus_as_they_are_meant(ask: Asked) -> None:
    vitals = ask.vitals
    before = await ask.numbers()
    assert before["lookout_healthy"] == 0
    assert {name for name in before if name.startswith("lookout_messages_total")} == {
        f"lookout_messages_total outcome={outcome}" for outcome in Outcome
    }
    assert set(before.values()) == {0, 1}, "but for the build there is nothing yet"

    make_well(vitals)
    each = (ContainerReport("api", Outcome.DEPLOYED, downtime=0.3),)
    vitals.ended(Report(Outcome.DEPLOYED, each=each), 7.0)
    vitals.ended(Report(Outcome.DEPLOYED), 100_000)
    vitals.ended(Report(Outcome.INVALID))
    vitals.pulled(3.0)
    vitals.renewal_failed()
    numbers = await ask.numbers()
    assert numbers["lookout_healthy"] == 1
    assert numbers["lookout_messages_total outcome=deployed"] == 2
    assert numbers["lookout_messages_total outcome=invalid"] == 1
    assert numbers["lookout_lease_errors_total"] == 1
    assert numbers["lookout_poll_errors_total"] == 0
    assert numbers["lookout_messages_in_flight"] == 0
    assert numbers["lookout_deploy_seconds_bucket le=5.0 outcome=deployed"] == 0
    assert numbers["lookout_deploy_seconds_bucket le=10.0 outcome=deployed"] == 1
    assert numbers["lookout_deploy_seconds_bucket le=28800.0 outcome=deployed"] == 1
    assert numbers["lookout_deploy_seconds_bucket le=+Inf outcome=deployed"] == 2
    assert numbers["lookout_deploy_seconds_count outcome=deployed"] == 2
    assert numbers["lookout_deploy_seconds_sum outcome=deployed"] == 100_007
    assert numbers["lookout_pull_seconds_count"] == 1
    assert numbers["lookout_downtime_seconds_sum"] == 0.3
    (build,) = (name for name in numbers if name.startswith("lookout_build_info"))
    assert re.fullmatch(r"lookout_build_info version=\d+\.\d+\.\d+\S*", build)


async def test_no_label_is_about_an_image_a_host_or_a_message(ask: Asked) -> None:
    ask.vitals.ended(Report(Outcome.DEPLOYED, "reason", each=(ContainerReport("api"),)), 7.0)
    _, text, headers = await ask("/metrics")
    labels = {key for f in text_string_to_metric_families(text) for s in f.samples for key in s.labels}
    assert labels == {"outcome", "le", "version"}
    assert headers["Content-Type"].startswith("text/plain; version=")


async def test_what_others_count_in_the_same_process_is_not_shown(ask: Asked) -> None:
    stranger = Counter("stranger", "Of somebody else.")
    try:
        _, text, _ = await ask("/metrics")
        names = {family.name for family in text_string_to_metric_families(text)}
        assert names
        assert all(name.startswith("lookout_") for name in names)
        assert not [family for family in REGISTRY.collect() if family.name.startswith("lookout")]
    finally:
        REGISTRY.unregister(stranger)


# How many, and for how long


async def test_each_connection_ends_with_its_answer(ask: Asked) -> None:
    for request in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2, b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n"):
        async with asyncio.timeout(web.LONGEST - 1):
            answer = await ask.raw(request)
        assert answer.count("HTTP/1.1 ") == 1
        assert "\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
async def test_who_does_not_send_a_whole_request_in_time_is_cut_off(
    ask: Asked, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LONGEST", 0.1)
    async with asyncio.timeout(5):
        await ask.raw(sent)


async def test_beyond_so_many_connections_one_more_is_closed_at_once_until_one_of_them_ends(
    ask: Asked, logs: list[EventDict]
) -> None:
    idle = [await asyncio.open_connection(LOOPBACK, ask.port) for _ in range(web.CONNECTIONS)]
    for _ in range(3):
        reader, writer = await asyncio.open_connection(LOOPBACK, ask.port)
        async with asyncio.timeout(web.LONGEST - 1):
            assert await reader.read() == b""
        writer.close()
    idle.pop()[1].close()
    async with asyncio.timeout(web.LONGEST - 1):
        while not await ask.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
            await asyncio.sleep(0.01)
    for _, writer in idle:
        writer.close()
    assert [event["event"] for event in logs] == ["request"]


# Where it listens


async def test_it_listens_where_it_is_told_and_no_longer_than_it_is_told() -> None:
    port = free_port()
    async with web.serving(Vitals(), LOOPBACK, port):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(b"HEAD /healthz HTTP/1.1\r\n")
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))
    async with asyncio.timeout(5):
        assert await reader.read() == b"", "a connection that is kept open does not keep it up"
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port))
    async with web.serving(Vitals(), LOOPBACK, port):
        pass


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "no-such-host.invalid", "no host", "x" * 100, "\N{SNOWMAN}..", "::g"]
)
async def test_a_host_that_is_not_here_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(WrongSettings) as wrong:
        async with web.serving(Vitals(), host, free_port()):
            pass
    (line,) = wrong.value.lines
    assert line.startswith("HttpPort, HttpHost: cannot listen on ")
    assert "\n" not in line


async def test_a_port_that_is_taken_is_a_wrong_setting() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WrongSettings) as wrong:
            async with web.serving(Vitals(), LOOPBACK, port):
                pass
    (line,) = wrong.value.lines
    assert str(port) in line
    assert "in use" in line
