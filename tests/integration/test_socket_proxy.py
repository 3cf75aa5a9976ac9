"""Behind the socket proxy everything works that Lookout does, with all that the proxy lets through and no more."""

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from lookout.model import Json
from testbed.compose import Compose
from testbed.engine import USUAL_SOCKET, PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.gate import Gate
from testbed.images import make_image, push
from testbed.proxy_image import CONFIGURATION, USER, make_proxy_image
from testbed.socket_proxy import SocketProxy
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.contained import LOOKOUT_USER, ContainedLookout
from tests.integration.deploys import leftovers
from tests.integration.forked import run
from tests.integration.hosts import CONTAINERD, Host
from tests.integration.readme import ROOT, Shell, block
from tests.integration.running import CODE
from tests.integration.service import Service
from tests.unit.test_socket_proxy import in_readme

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

DIES = 'CMD ["sh", "-c", "echo no such table >&2; exit 3"]'
LONG = 60  # seconds: no test of speed
SOCKET_GROUP = 4244

#: What engines since 25 are told in the call that creates a container.
AT_CREATE = {"POST /networks/{name}/connect"}


@pytest.fixture
def proxy(engine: PrivateEngine) -> Iterator[SocketProxy]:
    """The project's own proxy, before the engine."""
    with SocketProxy(engine.sandbox, engine.socket) as proxy:
        yield proxy


@pytest.fixture
def networks(engine: PrivateEngine) -> Iterator[tuple[str, str]]:
    """The names of two networks; of the second one every character has to be encoded in a path that can be."""
    run = secrets.token_hex(4)
    names = f"lookout-test-{run}", f"lookout test/{run} 100%"
    subnets = "10.98.1.0/24", "10.98.2.0/24"
    ids = [
        engine.docker("network", "create", f"--subnet={net}", name)
        for name, net in zip(names, subnets, strict=True)
    ]
    yield names
    for network in ids:
        engine.delete(f"/networks/{network}")


class Stage:
    """Containers of one image, of all kinds that Lookout has calls of its own for."""

    def __init__(
        self, engine: PrivateEngine, make: MakeContainer, image: str, tool: str, networks: tuple[str, str]
    ):
        first, second = networks
        self._engine = engine
        self.web = make(image, "web", "--restart=always", f"--network={first}", "--network-alias=shop")
        engine.docker("network", "connect", "--ip=10.98.2.7", "--alias=till", second, self.web)
        self.job = make(image, "worker", "--rm")
        self.loner = make(image, "loner")
        engine.docker("network", "disconnect", "bridge", self.loner)
        self.side = make(tool, "side", "--env=PORT=8081", f"--network=container:{self.web}")
        self.second = second
        engine.inside(self.web, "sh", "-c", "mkdir /run /run/secrets; echo hunter2 > /run/secrets/token")
        engine.inside(self.web, "sh", "-c", "echo kept > /data/file")

    def assert_runs(self, image: str) -> None:
        """All of them run this image, each as it was made."""
        web, job, loner, side = (
            self._engine.inspected(one) for one in (self.web, self.job, self.loner, self.side)
        )
        assert [one["Config"]["Image"] for one in (web, job, loner)] == [image] * 3
        assert [one["State"]["Running"] for one in (web, job, loner, side)] == [True] * 4
        assert side["HostConfig"]["NetworkMode"] == f"container:{web['Id']}"
        joined: Json = web["NetworkSettings"]["Networks"]
        assert len(joined) == 2
        assert "till" in joined[self.second]["Aliases"]
        assert joined[self.second]["IPAddress"] == "10.98.2.7"
        assert web["HostConfig"]["RestartPolicy"]["Name"] == "always"
        assert loner["NetworkSettings"]["Networks"] == {}
        assert job["HostConfig"]["AutoRemove"]
        assert self._engine.inside(self.web, "cat", "/run/secrets/token", "/data/file").split() == [
            "hunter2",
            "kept",
        ]
        assert not leftovers(self._engine)


@pytest.mark.queue
def test_everything_that_lookout_does_passes_and_nothing_is_on_the_list_that_it_does_not_do(
    app_image: AppImage,
    networks: tuple[str, str],
    make_container: MakeContainer,
    service: Service,
    sqs: LocalSqs,
    proxy: SocketProxy,
    engine: PrivateEngine,
    host: Host,
    tmp_path: Path,
) -> None:
    one = app_image("1", changes=["VOLUME /data"])
    repository = one.rpartition(":")[0]
    tool = f"{repository}-tool:1"
    make_image(engine, tool)
    push(engine, tool)
    stage = Stage(engine, make_container, one, tool, networks)
    settings: dict[str, Any] = {"DOCKER_HOST": proxy.docker_host, "KeepImages": "0", "MonitorSeconds": "0.5"}
    lookout = service.start(**settings)

    # A good image, one that dies, one that there is not, and one by its digest.
    two = app_image("2", changes=["VOLUME /data", "LABEL two=2"])
    lookout.wait_for("deployed", message_id=service.send(two), seconds=LONG)
    stage.assert_runs(two)
    assert lookout.logged("old image removed", image=one)
    before = engine.inspected(stage.web)["Id"]
    three = app_image("3", changes=["VOLUME /data", DIES])
    undone = lookout.wait_for("rolled_back", message_id=service.send(three), seconds=LONG)
    assert "exited with code 3" in undone["reason"]
    stage.assert_runs(two)
    assert engine.inspected(stage.web)["Id"] == before
    lookout.wait_for("failed", message_id=service.send(f"{repository}:none"), seconds=LONG)
    four = app_image("4", changes=["VOLUME /data", "LABEL four=4"])
    digest = json.loads(engine.get(f"/images/{four}/json"))["RepoDigests"][0].partition("@")[2]
    engine.delete(f"/images/{four}")
    lookout.wait_for("deployed", message_id=service.send(four, ImageDigest=digest), seconds=LONG)
    stage.assert_runs(four)

    # Killed in the middle of a swap, which the next one finishes or undoes.
    assert lookout.terminate(LONG) == 0
    five = app_image("5", changes=["VOLUME /data", "LABEL five=5"])
    cut = service.start(**settings)
    service.send(five)
    cut.wait_for("started", seconds=LONG)
    cut.kill()
    assert leftovers(engine)
    service.start(**settings)
    service.wait_until_settled()
    stage.assert_runs(five)

    # What an operator asks.
    environment = {"PATH": os.defpath, "PYTHONPATH": CODE, "SqsQueueUrl": service.queue_url}
    environment |= {"DOCKER_HOST": proxy.docker_host} | sqs.environment()
    for command in (["check"], ["plan", "--pull", five]):
        code, said, _ = run(environment, tmp_path, command, timeout=LONG)
        assert code == 0, said
        assert stage.web in said

    assert proxy.refused == []
    used = {entry for entry in in_readme() if any(map(pattern(entry).fullmatch, proxy.passed))}
    assert used == set(in_readme()) - (AT_CREATE if host.flavour is CONTAINERD else set())


def pattern(entry: str) -> re.Pattern[str]:
    """The calls that an entry of the README's list means."""
    method, path = entry.split()
    path = path.replace("{id}", "[^/?]+").replace("{name}", "[^?]+")
    return re.compile(rf"{method} (/v[0-9.]+)?{path}([?].*)?")


#: What nobody may do through the proxy, and what only looks like something that Lookout does.
REFUSED = (
    # Ways into what runs.
    *(
        "POST /containers/{id}/exec",
        "POST /exec/{id}/start",
        "GET /containers/{id}/attach/ws?stream=1&stdin=1",
    ),
    *("POST /containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1", "POST /containers/{id}/attach"),
    *("POST /containers/{id}/attach?stream=1&stdout=1&stderr=1&%73tdin=1", "POST /session", "POST /grpc"),
    # Calls for which Lookout has no use.
    *("POST /containers/{id}/kill", "POST /containers/{id}/pause", "POST /containers/{id}/restart"),
    *(
        "GET /containers/{id}/export",
        "GET /containers/{id}/top",
        "POST /commit?container={id}",
        "POST /build",
    ),
    *("GET /images/get?names=a", "POST /images/load", "POST /images/a/push", "GET /images/search?term=a"),
    *("POST /containers/prune", "POST /images/prune", "POST /volumes/prune", "POST /networks/prune"),
    *("GET /volumes", "POST /volumes/create", "DELETE /volumes/{id}", "GET /volumes/{id}", "GET /system/df"),
    *("POST /networks/create", "DELETE /networks/{id}", "GET /networks/{id}", "POST /auth", "GET /plugins"),
    *(
        "GET /swarm",
        "POST /swarm/init",
        "GET /secrets",
        "GET /configs",
        "GET /nodes",
        "POST /services/create",
    ),
    *(
        "HEAD /_ping",
        "HEAD /containers/{id}/archive?path=/",
        "OPTIONS /containers/json",
        "PUT /containers/create",
    ),
    # Paths that are, or might be taken for, others than they seem to be.
    *("GET /containers/../volumes", "GET /containers/json/../../volumes", "GET /containers/%2e%2e/json"),
    *(
        "GET /containers/{id}%2Fexport%3F/json",
        "GET /containers/{id}/../{id}/json",
        "GET /containers/a/b/json",
    ),
    *("GET /images/../volumes/x/json", "DELETE /images/../volumes/x", "DELETE /images/a/../../volumes/x"),
    *("DELETE /images/%2E%2E/volumes/x", "DELETE /images/..%2Fvolumes%2Fx", "DELETE /images/a//b"),
    *("POST /networks/%2E%2E/connect", "POST /networks/a%2F..%2Fb/connect", "POST /networks/./connect"),
    *("GET //containers/json", "GET /containers//json", "GET /containers/json/", "GET /v1.41", "GET /"),
    *(
        "GET /v1.41/v1.41/info",
        "GET /v1x41/info",
        "GET /v1.41/../info",
        "GET /v2/info",
        "GET /Info",
        "GET /info;a",
    ),
    *(
        "GET /volumes?/info",
        "GET http://docker/info",
        "GET http://docker/volumes",
    ),
)


def test_nothing_else_gets_to_the_engine(line: FaultProxy, engine: PrivateEngine) -> None:
    some = "0123456789abcdef"
    with SocketProxy(engine.sandbox, engine.directory / Path(line.docker_host).name) as proxy:
        assert answer(proxy, "GET /v1.41/info") == HTTPStatus.OK
        assert line.requests == ["GET /v1.41/info"]
        for call in REFUSED:
            assert answer(proxy, call.replace("{id}", some)) == HTTPStatus.FORBIDDEN, call
        for call in ("GET /info", f"POST /containers/{some}/attach?stream=1&stdout=1&stderr=1"):
            assert answer(proxy, call, "Connection: Upgrade\r\nUpgrade: tcp") == HTTPStatus.FORBIDDEN, call
        for call in ("GET /info#/../volumes", "GET docker:/info", "GET /volumes GET /info", "PRI * HTTP/2.0"):
            assert answer(proxy, call) == HTTPStatus.BAD_REQUEST
        assert line.requests == ["GET /v1.41/info"]
        assert len(proxy.refused) == len(REFUSED) + 2


def answer(proxy: SocketProxy, call: str, headers: str = "Accept: */*") -> int:
    """The status of the answer to a call that is sent as it stands here."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LONG)
        connection.connect(str(proxy.socket))
        head = f"{call} HTTP/1.1\r\nHost: docker\r\n{headers}\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head.encode())
        return int(connection.recv(len("HTTP/1.1 200")).split()[1])


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
async def test_who_hangs_up_hangs_up_on_the_engine(begins: bytes, engine: PrivateEngine) -> None:
    """Whether it has begun to answer, as with events, or not, as at the beginning of a pull."""
    called, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begins)
        called.set()
        await reader.read()
        gone.set()
        writer.close()

    path = engine.directory / "silent.sock"
    async with await asyncio.start_unix_server(silent, path):
        with SocketProxy(engine.sandbox, path) as proxy:
            reader, writer = await asyncio.open_unix_connection(proxy.socket)
            writer.write(
                b"POST /images/create?fromImage=a HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
            )
            await asyncio.wait_for(called.wait(), LONG)
            if begins:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            assert not gone.is_set()
            writer.close()
            await asyncio.wait_for(gone.wait(), LONG)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the compose files, as a clone has it."""
    files = tmp_path / "docker"
    files.mkdir()
    for file in (*(ROOT / "docker").glob("compose*.yml"), ROOT / "docker" / "socket-proxy.cfg"):
        shutil.copy(file, files)
    return files


@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_every_version_of_compose_gives_the_socket_to_the_proxy_alone(
    engine: PrivateEngine, suite: str, folder: Path
) -> None:
    compose = Compose(engine, suite, folder / "compose.yml", folder / "compose.socket-proxy.yml")
    for group, user in (("", "0"), (str(SOCKET_GROUP), f"{USER}:{SOCKET_GROUP}")):
        compose.write({"DOCKER_GID": group})
        project = json.loads(compose.run("config", "--format=json"))
        lookout, proxy, app = (project["services"][name] for name in ("lookout", "socket-proxy", "app"))
        assert not {"volumes", "group_add"} & lookout.keys()
        assert (lookout["user"], set(lookout["networks"])) == ("lookout", {"default", "socket"})
        assert lookout["environment"]["DOCKER_HOST"] == "tcp://socket-proxy:2375"
        assert (proxy["user"], set(proxy["networks"])) == (user, {"socket"})
        assert [one["target"] for one in proxy["volumes"]] == [str(USUAL_SOCKET), CONFIGURATION]
        assert project["networks"]["socket"]["internal"]
        assert "socket" not in app["networks"]


@pytest.mark.queue
def test_beside_the_proxy_a_message_deploys_though_lookout_has_no_socket(
    engine: PrivateEngine,
    product_image: str,
    gate: Gate,
    sqs: LocalSqs,
    queue_url: str,
    app_image: AppImage,
    inspect: Inspect,
    folder: Path,
) -> None:
    make_proxy_image(engine, "lookout-test-haproxy:1")
    engine.sandbox.run(["chgrp", str(SOCKET_GROUP), engine.socket])
    name, two = app_image("1").removesuffix(":1"), app_image("2")
    settings = sqs.environment() | {
        "LOOKOUT_IMAGE": product_image,
        "SOCKET_PROXY_IMAGE": "lookout-test-haproxy:1",
        "APP_IMAGE": name,
        "TAG": "1",
        "DOCKER_GID": str(SOCKET_GROUP),
        "DOCKER_SOCKET": str(engine.socket),
        "AWS_ENDPOINT_URL_SQS": gate.endpoint,
        "SqsQueueUrl": queue_url.replace(sqs.endpoint, gate.endpoint),
        "LogFormat": "json",
        "MonitorSeconds": "0.2",
        "PollTimeSeconds": "1",
    }
    (folder / ".env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    shell = Shell(engine, folder.parent)
    up = f"export DOCKER_HOST={engine.docker_host}\n{block('A socket proxy', 'sh')}"
    try:
        shell.run(up)
        sqs.send(queue_url, {"ImageName": name, "ImageTag": "2"})
        ContainedLookout(engine, "docker-lookout-1").wait_for("deployed", image=two)
        assert inspect("docker-app-1")["Config"]["Image"] == two
        assert inspect("docker-lookout-1")["Mounts"] == []
        assert ids(engine, "docker-lookout-1") == {LOOKOUT_USER}
        assert ids(engine, "docker-socket-proxy-1") == {USER, SOCKET_GROUP}
        assert "403" not in engine.docker("logs", "docker-socket-proxy-1")
    finally:
        shell.run(up.replace("up --detach", "down --timeout=1"))


def ids(engine: PrivateEngine, container: str) -> set[int]:
    """Of the user and the groups that the first process of a container has."""
    status = engine.sandbox.run(["cat", f"/proc/{engine.inspected(container)['State']['Pid']}/status"])
    lines = re.findall(r"^(?:Uid|Gid|Groups):\s*(.*)$", status, re.MULTILINE)
    return {int(number) for line in lines for number in line.split()}
