"""The registries of the test bed keep their promises, and so do the lines to them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from testbed.engine import DockerFailed, PrivateEngine
from testbed.faulty_registry import BLOBS, FaultyRegistry
from testbed.images import make_image, pull, push
from testbed.platforms import push_for, push_index
from testbed.registry import Registry
from testbed.sandbox import address_of
from testbed.token_server import Shown, TokenServer
from tests.integration.conftest import AppImage
from tests.integration.hosts import Host

pytestmark = pytest.mark.engine

MEGABYTE = 1_000_000
Through = Callable[..., str]


def network() -> Path:
    """The network of the calling thread."""
    return Path("/proc/thread-self/ns/net").readlink()


@pytest.fixture
def through(
    engine: PrivateEngine, registry: Registry, registry_line: FaultyRegistry, app_image: AppImage
) -> Through:
    """Make an image that only the registry has, and return its name at the line."""

    def make(tag: str = "1", **options: int) -> str:
        image = app_image(tag, **options)
        engine.docker("rmi", image)
        return image.replace(registry.host, registry_line.host)

    return make


def test_a_private_registry_refuses_strangers(engine: PrivateEngine, private_registry: Registry) -> None:
    image = f"{private_registry.host}/secret:1"
    make_image(engine, image)
    with pytest.raises(DockerFailed, match="no basic auth credentials"):
        push(engine, image)
    [(user, password)] = private_registry.users.items()
    push(engine, image, user, password)
    with pytest.raises(DockerFailed, match=r"(?i)unauthorized"):
        pull(engine, image, user, "wrong")
    pull(engine, image, user, password)


def test_a_registry_changes_its_users_while_it_runs(engine: PrivateEngine) -> None:
    with Registry(engine.sandbox, "other.test", {}) as registry:
        assert registry.host == "other.test"
        image = f"{registry.host}/secret:1"
        make_image(engine, image)
        with pytest.raises(DockerFailed):
            push(engine, image, "first", "1")

        registry.know({"first": "1"})
        push(engine, image, "first", "1")

        registry.know({"first": "2"})
        with pytest.raises(DockerFailed):
            pull(engine, image, "first", "1")
        pull(engine, image, "first", "2")


@pytest.mark.newest
def test_a_token_server_lets_in_whom_it_knows_by_password_or_identity(
    engine: PrivateEngine, token_server: TokenServer, token_registry: Registry
) -> None:
    image = f"{token_registry.host}/acme/api:1"
    make_image(engine, image)
    push(engine, image, "user", "password")
    token_server.shown.clear()

    pull(engine, image, "user", "password")
    pull(engine, image, identity="identity")
    assert token_server.shown == [
        Shown(("user", "password"), "", "repository:acme/api:pull"),
        Shown(None, "identity", "repository:acme/api:pull"),
    ]

    for unknown in ({}, {"user": "user", "password": "wrong"}, {"identity": "wrong"}):
        with pytest.raises(DockerFailed, match="incorrect username or password"):
            pull(engine, image, **unknown)
    token_server.refusal = 200
    with pytest.raises(DockerFailed, match=r"access.*denied"):
        pull(engine, image)

    token_server.identities["wrong"] = "user"
    pull(engine, image, identity="wrong")


def test_a_slow_line_slows_a_pull(
    engine: PrivateEngine, registry_line: FaultyRegistry, through: Through
) -> None:
    def seconds(image: str) -> float:
        began = time.monotonic()
        engine.docker("pull", image)
        return time.monotonic() - began

    image = through(ballast=3 * MEGABYTE)
    direct = seconds(image)
    engine.docker("rmi", image)
    registry_line.rate = int(3 * MEGABYTE / direct / 5)
    assert seconds(image) > 3 * direct


def test_a_line_knows_who_asked_for_what(engine: PrivateEngine, private_registry: Registry) -> None:
    with FaultyRegistry(engine.sandbox, "registry.test", 5001) as line:
        image = f"{line.host}/secret:1"
        make_image(engine, image)
        push(engine, image, "user", "password")
        line.requests.clear()

        with pytest.raises(DockerFailed):
            pull(engine, image, "user", "wörng:")
        pull(engine, image, "user", "password")

        assert {asked.user for asked in line.requests} == {None, ("user", "wörng:"), ("user", "password")}
        assert not any(asked.token for asked in line.requests)
        assert "HEAD /v2/secret/manifests/1" in [asked.line for asked in line.requests]


@pytest.mark.newest(only=True)  # others wait before they say so
def test_a_line_is_cut_once_or_for_ever(
    engine: PrivateEngine, registry_line: FaultyRegistry, through: Through
) -> None:
    image = through(ballast=3 * MEGABYTE)
    registry_line.cut(at=MEGABYTE)
    for _ in range(2):
        with pytest.raises(DockerFailed, match="EOF"):
            engine.docker("pull", image)

    registry_line.behave()
    registry_line.cut(at=MEGABYTE, times=1)
    with pytest.raises(DockerFailed, match="EOF"):
        engine.docker("pull", image)
    engine.docker("pull", image)


@pytest.mark.newest(only=True)
def test_a_line_that_stalls_keeps_a_pull_waiting(
    engine: PrivateEngine, registry_line: FaultyRegistry, through: Through
) -> None:
    image = through(ballast=3 * MEGABYTE)
    registry_line.stall(at=MEGABYTE)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(engine.docker, "pull", image)
        assert not wait([waiting], timeout=1).done
        registry_line.stop()
        with pytest.raises(DockerFailed):
            waiting.result(20)
    registry_line.behave()
    registry_line.start()
    engine.docker("pull", image)


def test_a_line_refuses_as_often_as_it_is_told(
    engine: PrivateEngine, registry_line: FaultyRegistry, through: Through
) -> None:
    def ask() -> tuple[int, str | None, bytes]:
        with closing(HTTPConnection(*address_of("registry.test"))) as connection:
            connection.request("GET", "/v2/")
            answer = connection.getresponse()
            return answer.status, answer.headers["Retry-After"], answer.read()

    registry_line.refuse(BLOBS, 500)
    registry_line.refuse("^GET /v2/$", 429, times=2, headers={"Retry-After": "7"}, body="not so fast")
    said = [engine.sandbox.call(ask) for _ in range(3)]
    assert said[:2] == [(429, "7", b"not so fast")] * 2
    assert said[2][0] == 200
    with pytest.raises(DockerFailed, match="500 Internal Server Error"):
        engine.docker("pull", through())


def test_a_line_leaves_the_test_in_its_own_network(
    engine: PrivateEngine, registry_line: FaultyRegistry
) -> None:
    assert engine.sandbox.call(network) != network()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(network).result() == network()


@pytest.mark.newest
def test_an_index_has_an_image_for_each_platform(
    engine: PrivateEngine, host: Host, registry: Registry, app_image: AppImage
) -> None:
    image, other = app_image("amd"), app_image("arm")
    name = image.rpartition(":")[0]
    engine.docker("rmi", image, other)

    digest = push_index(engine.sandbox, f"{name}:1", {"linux/amd64": "amd", "linux/arm/v7": "arm"})
    said = "--format={{.Os}} {{.Architecture}} {{.Variant}}"
    for platform, tag in (("linux/amd64", "amd"), ("linux/arm/v7", "arm")):
        engine.docker("pull", f"--platform={platform}", f"{name}:1")
        assert engine.docker("inspect", said, f"{name}:1").split() == platform.split("/")
        assert engine.docker("run", "--rm", f"{name}:1", "cat", "/www/index.html") == tag
        engine.docker("rmi", f"{name}:1")
    assert engine.docker("pull", "--quiet", f"{name}@{digest}")
    with pytest.raises(DockerFailed, match="no matching manifest"):
        engine.docker("pull", "--platform=linux/s390x", f"{name}:1")

    push_for(engine.sandbox, f"{name}:2", "arm", "linux/arm64")
    engine.docker("pull", f"{name}:2")
    assert engine.docker("inspect", said, f"{name}:2").split() == ["linux", "arm64"]


def test_an_engine_with_little_room_runs_out_of_it(host: Host, registry: Registry) -> None:
    with host.flavour.engine(room=40 * MEGABYTE) as small, Registry(small.sandbox, 5000) as registry:
        image = f"{registry.host}/api:1"
        make_image(small, image, ballast=5 * MEGABYTE)
        push(small, image)
        small.docker("rmi", image)
        filler = small.directory / "data/filler"
        small.sandbox.run(["fallocate", f"--length={34 * MEGABYTE}", filler])
        with pytest.raises(DockerFailed, match="no space left on device"):
            small.docker("pull", image)
        small.sandbox.run(["rm", filler])
        small.docker("pull", image)
