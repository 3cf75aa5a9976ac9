"""Several registries with credentials of their own, and a Lookout that shows each what is for it."""

import asyncio
import base64
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lookout.credentials import Credentials
from lookout.docker_config import DockerConfig
from lookout.engine import Engine
from lookout.keychain import Keychain
from lookout.model import Outcome
from lookout.planner import Planner
from testbed.ecr import Ecr
from testbed.engine import PrivateEngine
from testbed.faulty_registry import FaultyRegistry
from testbed.images import make_image, push
from testbed.registry import Registry
from testbed.token_server import TokenServer
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import request_for
from tests.integration.running import RunningLookout
from tests.integration.service import ENDED_WITHIN, Service

pytestmark = pytest.mark.engine


@dataclass
class Private:
    """A container of an image of a private registry, whose every request is seen."""

    container: str
    repository: str
    registry: Registry
    line: FaultyRegistry

    @property
    def host(self) -> str:
        return self.line.host

    @property
    def shown(self) -> set[tuple[str, str]]:
        """The names and passwords that the registry was shown."""
        return {asked.user for asked in self.line.requests if asked.user}


@pytest.fixture
def two(engine: PrivateEngine, make_container: MakeContainer) -> Iterator[tuple[Private, Private]]:
    """Two of them, which know "one" and "other"; of tags 2 and 3 only they have the images."""
    with ExitStack() as stack:

        def make(name: str, port: int, user: str) -> Private:
            users = {user: f"{user}-{secrets.token_hex(8)}"}
            registry = stack.enter_context(Registry(engine.sandbox, port, users))
            line = stack.enter_context(FaultyRegistry(engine.sandbox, name, port))
            path = f"test-{secrets.token_hex(4)}/{user}"
            make_image(engine, f"{registry.host}/{path}:1")
            for tag in ("1", "2", "3"):
                engine.docker("tag", f"{registry.host}/{path}:1", f"{registry.host}/{path}:{tag}")
                push(engine, f"{registry.host}/{path}:{tag}", user, users[user])
            engine.docker("tag", f"{registry.host}/{path}:1", f"{line.host}/{path}:1")
            engine.docker("rmi", *(f"{registry.host}/{path}:{tag}" for tag in ("1", "2", "3")))
            container = make_container(f"{line.host}/{path}:1", user)
            return Private(container, f"{line.host}/{path}", registry, line)

        yield make("registry.test", 5011, "one"), make("other.test", 5012, "other")


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write(folder: Path, logins: Mapping[str, Mapping[str, str]], **more: object) -> None:
    """As `docker login` does it: a new file in the place of the old one."""
    auths = {
        host: {"auth": auth(user, password)}
        for host, users in logins.items()
        for user, password in users.items()
    }
    folder.mkdir(exist_ok=True)
    new = folder / "config.json.new"
    new.write_text(json.dumps({"auths": auths, **more}))
    new.replace(folder / "config.json")


def assert_secret(lookout: RunningLookout, words: list[str]) -> None:
    assert lookout.terminate(ENDED_WITHIN) == 0
    said = json.dumps(lookout.events)
    assert not [word for word in words if word in said]


@pytest.mark.containerd
def test_each_registry_gets_its_own_at_the_same_time_and_what_has_changed_at_the_next_pull(
    two: tuple[Private, Private], service: Service, inspect: Inspect, tmp_path: Path
) -> None:
    folder = tmp_path / "docker"
    write(folder, {one.host: one.registry.users for one in two})
    lookout = service.start(DOCKER_CONFIG=str(folder))
    words: list[str] = []
    for tag in ("2", "3"):
        for message in [service.send(f"{one.repository}:{tag}") for one in two]:
            lookout.wait_for("deployed", message_id=message)
        for one in two:
            assert inspect(one.container)["Config"]["Image"] == f"{one.repository}:{tag}"
            assert one.shown == {*one.registry.users.items()}
            one.line.requests.clear()
            [(user, word)] = one.registry.users.items()
            words += [word, auth(user, word)]
            one.registry.know({user: f"{user}-{secrets.token_hex(8)}"})
        write(folder, {one.host: one.registry.users for one in two})
    assert {event["credentials"] for event in lookout.logged("pulled")} == {str(folder / "config.json")}
    assert_secret(lookout, words)


def test_what_is_given_for_a_server_goes_before_the_file_and_nowhere_else(
    two: tuple[Private, Private], service: Service, tmp_path: Path
) -> None:
    one, other = two
    write(tmp_path / "docker", {one.host: {"one": "wrong"}, other.host: other.registry.users})
    lookout = service.start(
        DOCKER_CONFIG=str(tmp_path / "docker"),
        RegistryServer=f"https://{one.host}/",
        RegistryUsername="one",
        RegistryPassword=one.registry.users["one"],
    )
    for message in [service.send(f"{private.repository}:2") for private in two]:
        lookout.wait_for("deployed", message_id=message)
    for private in two:
        assert private.shown == {*private.registry.users.items()}
    sources = {event["image"]: event["credentials"] for event in lookout.logged("pulled")}
    assert sources[f"{one.repository}:2"] == "RegistryUsername"


def test_what_is_given_for_no_server_goes_to_the_only_registry_and_to_none_of_several(
    two: tuple[Private, Private], service: Service, engine: PrivateEngine
) -> None:
    """As in the original, which knows no other registry."""
    one, other = two
    lookout = service.start(RegistryUsername="one", RegistryPassword=one.registry.users["one"])
    for private in two:
        failed = lookout.wait_for("failed", message_id=service.send(f"{private.repository}:2"))
        assert f"come from {other.host}, {one.host}; set RegistryServer" in failed["reason"]
    (said,) = lookout.logged("credentials not used")
    assert "set RegistryServer" in said["reason"]
    assert not one.shown
    assert not other.shown
    engine.docker("update", "--restart=unless-stopped", other.container)
    engine.docker("stop", "-t", "0", other.container)
    lookout.wait_for("failed", message_id=service.send(f"{one.repository}:2"))
    engine.docker("update", "--restart=no", other.container)
    lookout.wait_for("deployed", message_id=service.send(f"{one.repository}:3"))
    assert one.shown == {*one.registry.users.items()}
    assert not other.shown


async def test_a_registry_counts_also_while_its_container_is_paused_or_in_the_middle_of_a_swap(
    connection: Engine,
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
) -> None:
    one, two = app_image("1"), app_image("2")
    other = f"other.test/{one.partition('/')[2]}"
    engine.tag(one, other)
    slow = make_container(one, "api", "--publish=18095:8080", "--stop-timeout=1")
    paused = make_container(other, "paused")
    engine.docker("pause", paused)
    planner = Planner(connection, own_id=None, require_label=False)
    everywhere = {one.partition("/")[0], "other.test"}
    deploying = asyncio.create_task(make_deployer().deploy(request_for(two)))
    seen = set()
    while not deploying.done():
        seen.add(frozenset(await planner.registries()))
    engine.docker("unpause", paused)
    assert deploying.result().containers == (slow,)
    assert seen == {frozenset(everywhere)}


@pytest.mark.containerd
@pytest.mark.parametrize("identity", [False, True], ids=["password", "identity token"])
async def test_a_registry_that_wants_a_token_gets_it_by_a_login_of_either_kind(
    engine: PrivateEngine,
    token_registry: Registry,
    token_server: TokenServer,
    make_container: MakeContainer,
    deploy: Deploy,
    tmp_path: Path,
    identity: bool,
) -> None:
    image = f"{token_registry.host}/test-{secrets.token_hex(4)}/api"
    for tag in ("1", "2"):
        make_image(engine, f"{image}:{tag}")
        push(engine, f"{image}:{tag}", "user", "password")
    engine.docker("rmi", f"{image}:2")
    make_container(f"{image}:1", "api")
    token_server.shown.clear()
    login = {"identitytoken": "identity"} if identity else {"username": "user", "password": "password"}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {token_registry.host: login}}))
    report = await deploy(f"{image}:2", keychain=Keychain([DockerConfig(tmp_path)]))
    assert report.outcome is Outcome.DEPLOYED, report.reason
    shown = {(one.user, one.identity) for one in token_server.shown}
    assert shown == ({(None, "identity")} if identity else {(("user", "password"), "")})


def test_no_secret_is_anywhere(
    two: tuple[Private, Private],
    ecr: Ecr,
    engine: PrivateEngine,
    registry: Registry,
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    inspect: Inspect,
    tmp_path: Path,
) -> None:
    """By the settings, by a helper that also fails, by ECR; good, refused, and not there: at debug level."""
    one, other = two
    image = app_image("1").replace(registry.host, ecr.host)
    engine.docker("tag", image.replace(ecr.host, registry.host), image)
    app_image("2")
    from_ecr = make_container(image, "ecr")
    folder = tmp_path / "docker"
    helper = folder / "docker-credential-shop"
    write(folder, {}, credHelpers={other.host: "shop"})
    word = other.registry.users["other"]
    helper.write_text(f'#!/bin/sh\necho \'{{"Username": "other", "Secret": "{word}"}}\'\n')
    helper.chmod(0o755)
    password = one.registry.users["one"]
    lookout = service.start(
        PATH=f"{folder}:{os.defpath}",
        DOCKER_CONFIG=str(folder),
        RegistryServer=one.host,
        RegistryUsername="one",
        RegistryPassword=password,
    )
    images = [f"{one.repository}:2", f"{other.repository}:2", image.replace(":1", ":2")]
    for message in [service.send(reference) for reference in images]:
        lookout.wait_for("deployed", message_id=message)
    inspected = [inspect(name) for name in (one.container, other.container, from_ecr)]
    assert [container["Config"]["Image"] for container in inspected] == images

    for private in two:
        [user] = private.registry.users
        private.registry.know({user: "changed"})
    ecr.revoked.update(ecr.tokens())
    helper.write_text(f"#!/bin/sh\necho {word} >&2\necho {word}\nexit 1\n")
    for reference in images:
        lookout.wait_for("failed", message_id=service.send(reference.replace(":2", ":3")))
    made = json.dumps([inspected, engine.listed(), json.loads(engine.get("/images/json", all="1"))])
    users = [("one", password), ("other", word), *(("AWS", token) for token in ecr.tokens())]
    hosts = (one.host, other.host, ecr.host)
    words = [text for user, secret in users for text in (secret, auth(user, secret))]
    words += [Credentials("", *user).header(host) for user in users for host in hosts]
    assert len(words) > 4
    assert not [text for text in words if text in made]
    assert_secret(lookout, words)
