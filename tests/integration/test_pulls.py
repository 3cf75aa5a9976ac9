"""Pulls through a line that does wrong: what passes is tried again, what does not costs no container."""

import asyncio
import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from structlog.typing import EventDict

from lookout.engine import Engine
from lookout.errors import PullFailed, PullFault
from lookout.keychain import Keychain
from lookout.model import Json, Outcome
from lookout.progress import Progress
from lookout.puller import Puller
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.faulty_registry import BLOBS, MANIFESTS, FaultyRegistry
from testbed.images import make_image, push
from testbed.registry import Registry
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, new_deployer, request_for
from tests.integration.hosts import Host, needed
from tests.integration.queues import said, until

pytestmark = pytest.mark.engine

MEGABYTE = 1_000_000
# All of it where engines are compared; else the same with less to compress.
LARGE = (200 if os.environ.get("LOOKOUT_TEST_COMPAT") else 20) * MEGABYTE
UNKNOWN = f"sha256:{'0' * 64}"


@dataclass
class Shop:
    """A container on tag 1 of an image that comes through the faulty line, and tag 2, which only that has."""

    container: str
    image: str  # with tag 2
    before: Json
    line: FaultyRegistry
    engine: PrivateEngine

    def asked(self, pattern: str) -> int:
        """How often the registry was asked for this."""
        return sum(bool(re.search(pattern, asked.line)) for asked in self.line.requests)

    def assert_untouched(self, inspect: Inspect) -> None:
        after = inspect(self.container)
        assert (after["Id"], after["State"]) == (self.before["Id"], self.before["State"])
        assert not leftovers(self.engine)

    def assert_not_here(self) -> None:
        """No part of the image counts as the image."""
        assert not self.engine.docker("images", "--quiet", self.image)


MakeShop = Callable[..., Shop]


@pytest.fixture
def make_shop(
    engine: PrivateEngine,
    registry: Registry,
    registry_line: FaultyRegistry,
    app_image: AppImage,
    make_container: MakeContainer,
    inspect: Inspect,
) -> MakeShop:
    def make(**options: int) -> Shop:
        one, two = app_image("1"), app_image("2", **options)
        engine.docker("rmi", two)
        through = one.replace(registry.host, registry_line.host)
        engine.docker("tag", one, through)
        name = make_container(through, "shop")
        image = two.replace(registry.host, registry_line.host)
        return Shop(name, image, inspect(name), registry_line, engine)

    return make


def retries(logs: list[EventDict]) -> list[EventDict]:
    return said(logs, "trying to pull again")


# What may pass


@pytest.mark.newest(only=True)
@pytest.mark.containerd(only=True)
async def test_a_large_pull_that_is_cut_again_and_again_ends_well(
    make_shop: MakeShop, deploy: Deploy, inspect: Inspect, logs: list[EventDict], host: Host
) -> None:
    """The engine with the containerd image store goes on by itself, four times; then it is for Lookout."""
    shop = make_shop(ballast=LARGE)
    times = 3 if host.flavour.name == "forky" else 12
    shop.line.cut(at=LARGE // 2, times=times)
    report = await deploy(shop.image)
    assert report.outcome is Outcome.DEPLOYED, report.reason
    assert inspect(shop.container)["Config"]["Image"] == shop.image
    assert retries(logs)
    assert all("check that registry.test can be reached" in event["error"] for event in retries(logs))
    (pulled,) = said(logs, "pulled")
    assert (pulled["image"], pulled["credentials"]) == (shop.image, "no credentials")


@pytest.mark.containerd
async def test_a_pull_that_is_cut_for_ever_fails_for_now_and_leaves_nothing(
    make_shop: MakeShop, deploy: Deploy, inspect: Inspect, logs: list[EventDict]
) -> None:
    shop = make_shop(ballast=4 * MEGABYTE)
    shop.line.cut(at=2 * MEGABYTE)
    report = await deploy(shop.image, pull_timeout=2)
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    shop.assert_untouched(inspect)
    shop.assert_not_here()
    assert not said(logs, "pulled")
    shop.line.behave()
    assert (await deploy(shop.image)).outcome is Outcome.DEPLOYED


@pytest.mark.containerd
@pytest.mark.parametrize(
    ("pattern", "at"), [(MANIFESTS, 0), (BLOBS, 12 * MEGABYTE)], ids=["manifest", "layer"]
)
async def test_a_registry_that_stalls_is_given_up(
    make_shop: MakeShop, deploy: Deploy, inspect: Inspect, logs: list[EventDict], pattern: str, at: int
) -> None:
    """The containerd image store repeats its last line for ever meanwhile."""
    shop = make_shop(ballast=20 * MEGABYTE if at else 0)
    shop.line.stall(pattern, at=at)
    report = await deploy(shop.image, pull_timeout=4, inactivity=1.5)
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert "nothing came for 2 s" in retries(logs)[0]["error"]
    shop.assert_untouched(inspect)
    shop.assert_not_here()


@pytest.mark.containerd
async def test_a_registry_that_is_slow_but_moves_is_not_given_up(
    make_shop: MakeShop, deploy: Deploy, logs: list[EventDict]
) -> None:
    shop = make_shop(ballast=12 * MEGABYTE)
    shop.line.rate = 4 * MEGABYTE
    report = await deploy(shop.image, inactivity=1.5)
    assert report.outcome is Outcome.DEPLOYED, report.reason
    assert not retries(logs)


@pytest.mark.containerd
@pytest.mark.parametrize("status", [429, 503])
async def test_what_a_registry_refuses_for_a_moment_is_asked_again(
    make_shop: MakeShop, deploy: Deploy, logs: list[EventDict], status: int
) -> None:
    shop = make_shop()
    shop.line.refuse(MANIFESTS, status, times=20, headers={"Retry-After": "7"}, body="slow down")
    report = await deploy(shop.image)
    assert report.outcome is Outcome.DEPLOYED, report.reason
    hint = (
        "registry.test allows more to those who log in" if status == 429 else "can be reached from this host"
    )
    assert retries(logs)
    assert all(hint in event["error"] for event in retries(logs))


async def test_a_wait_that_a_registry_asks_for_in_words_is_heeded(
    make_shop: MakeShop, deploy: Deploy, logs: list[EventDict]
) -> None:
    shop = make_shop()
    asked = {"errors": [{"code": "TOOMANYREQUESTS", "message": "retry-after: 2.5s, allowed: 1/minute"}]}
    json_type = {"Content-Type": "application/json"}
    shop.line.refuse(MANIFESTS, 429, times=2, headers=json_type, body=json.dumps(asked))
    report = await deploy(shop.image, pull_timeout=4)
    assert report.outcome is Outcome.DEPLOYED, report.reason
    assert [event["seconds"] for event in retries(logs)] == [2.5]


async def test_a_pull_that_runs_out_of_time_says_what_has_gone_wrong_before(
    make_shop: MakeShop, deploy: Deploy, logs: list[EventDict]
) -> None:
    shop = make_shop()
    shop.line.refuse(MANIFESTS, 503, times=2)
    shop.line.stall(MANIFESTS)
    report = await deploy(shop.image, pull_timeout=3)
    assert "503 Service Unavailable" in report.reason
    shop.line.behave()
    shop.line.stall(MANIFESTS)
    report = await deploy(shop.image, pull_timeout=2)
    assert "it was not done in PullTimeoutSeconds" in report.reason


async def test_a_registry_that_cannot_be_reached_is_tried_until_the_time_is_up(
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
    app_image: AppImage,
    logs: list[EventDict],
) -> None:
    image = f"127.0.0.1:5999/test-{secrets.token_hex(4)}/api"
    engine.docker("tag", app_image("1"), f"{image}:1")
    make_container(f"{image}:1", "api")
    report = await deploy(f"{image}:2", pull_timeout=1)
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert len(retries(logs)) > 2


async def test_a_throttled_pull_waits_longer_and_longer_and_uses_all_of_its_time(
    make_shop: MakeShop, connection: Engine, logs: list[EventDict]
) -> None:
    """By times that are a tenth of the real ones: three tries are throttled, and one has to come after."""
    shop = make_shop()
    shop.line.refuse(MANIFESTS, 429, times=6, body="slow down")
    puller = Puller(connection, Keychain(), timeout=6, longest_wait=3)
    await puller.pull(request_for(shop.image), deploy_time=1)
    assert len(retries(logs)) == 3


# What does not pass


@pytest.mark.containerd
@pytest.mark.parametrize(
    ("status", "body", "transient", "hint"),
    [
        (401, '{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}', True, "docker login"),
        (403, '{"errors": [{"code": "DENIED", "message": "no"}]}', True, "docker login"),
        (404, '{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no"}]}', False, "check ImageName"),
    ],
    ids=["unauthorised", "denied", "unknown"],
)
async def test_what_would_only_fail_again_is_asked_once(
    make_shop: MakeShop,
    deploy: Deploy,
    inspect: Inspect,
    logs: list[EventDict],
    status: int,
    body: str,
    transient: bool,
    hint: str,
) -> None:
    shop = make_shop()
    shop.line.refuse(MANIFESTS, status, headers={"Content-Type": "application/json"}, body=body)
    report = await deploy(shop.image)
    assert (report.outcome, report.transient) == (Outcome.FAILED, transient)
    assert f"cannot pull {shop.image} with no credentials" in report.reason
    assert hint in report.reason
    assert not retries(logs)
    assert shop.asked(r"^GET \S+/manifests/") <= 1
    shop.assert_untouched(inspect)


@pytest.mark.containerd
async def test_a_digest_that_the_registry_does_not_have_fails_before_anything_is_stopped(
    make_shop: MakeShop, make_deployer: MakeDeployer, inspect: Inspect, logs: list[EventDict]
) -> None:
    shop = make_shop()
    report = await make_deployer().deploy(request_for(shop.image, digest=UNKNOWN))
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert "ImageDigest" in report.reason
    assert not retries(logs)
    shop.assert_untouched(inspect)
    shop.assert_not_here()


@pytest.mark.containerd
async def test_an_image_of_another_digest_than_was_asked_for_is_not_deployed(
    make_shop: MakeShop,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What an engine, or what stands before it, would do wrong: it takes any image for the one asked for."""
    shop, deployer = make_shop(), make_deployer()

    async def tag_another(source: str, image: object) -> None:
        engine.docker("tag", shop.before["Image"], shop.image)

    async def pull(*_: object) -> None:
        pass

    monkeypatch.setattr(deployer._puller._engine, "tag", tag_another)
    monkeypatch.setattr(deployer._puller._engine, "pull", pull)
    report = await deployer.deploy(request_for(shop.image, digest=UNKNOWN))
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert f"and not {UNKNOWN}; check ImageDigest" in report.reason
    shop.assert_untouched(inspect)


@pytest.mark.newest
@pytest.mark.containerd
async def test_a_full_disk_fails_the_pull_and_harms_no_container(
    host: Host, monkeypatch: pytest.MonkeyPatch, logs: list[EventDict]
) -> None:
    with needed():
        small = host.flavour.engine(room=60 * MEGABYTE)
    with small, Registry(small.sandbox, 5000) as registry:
        monkeypatch.setenv("DOCKER_HOST", small.docker_host)
        image = f"{registry.host}/api"
        for tag, ballast in (("1", 0), ("2", 10 * MEGABYTE)):
            make_image(small, f"{image}:{tag}", ballast=ballast)
            push(small, f"{image}:{tag}")
        small.docker("rmi", f"{image}:2")
        name = small.docker("run", "-d", f"{image}:1")
        before = small.inspected(name)
        left = int(
            small.sandbox.run(["df", "--output=avail", "--block-size=1", small.directory / "data"]).split()[1]
        )
        filler = small.directory / "data" / "filler"
        small.sandbox.run(["fallocate", f"--length={left - 5 * MEGABYTE}", filler])
        async with Engine.connect() as connection:
            deployer = new_deployer(connection, Keychain())
            report = await deployer.deploy(request_for(f"{image}:2"))
            assert (report.outcome, report.transient) == (Outcome.FAILED, True)
            assert "no space left on device" in report.reason
            assert "free space on this host's disk" in report.reason
            assert not retries(logs)
            assert small.inspected(name)["State"] == before["State"]
            small.sandbox.run(["rm", filler])
            await until(lambda: small.answers())
            assert (await deployer.deploy(request_for(f"{image}:2"))).outcome is Outcome.DEPLOYED
            await deployer.close()


# One pull for all


@pytest.fixture
def puller(connection: Engine) -> Puller:
    return Puller(connection, Keychain(), longest_wait=0.2)


def pulls(line: FaultProxy) -> list[str]:
    return [request for request in line.requests if "/images/create" in request]


async def test_an_image_is_pulled_once_for_all_who_wait_for_it_and_each_sees_how_far_it_is(
    make_shop: MakeShop, puller: Puller, line: FaultProxy
) -> None:
    shop = make_shop(ballast=3 * MEGABYTE)
    shop.line.rate = 3 * MEGABYTE
    seen: list[list[Progress]] = [[], []]
    images = await asyncio.gather(
        *(puller.pull(request_for(shop.image), deploy_time=5, watch=one.append) for one in seen)
    )
    assert images[0]["Id"] == images[1]["Id"]
    assert len(pulls(line)) == 1
    for told in seen:
        assert [one.percent for one in told] == sorted(one.percent for one in told)
        assert any(0 < one.percent < 100 and 0 < one.bytes < one.bytes_total for one in told)
        assert (told[-1].percent, told[-1].layers, told[-1].layers_done) == (100, 1, 1)
        assert told[-1].bytes == told[-1].bytes_total > 3 * MEGABYTE
    await puller.pull(request_for(shop.image), deploy_time=5)
    assert len(pulls(line)) == 2, "what is over is not what is asked for now"


async def test_a_pull_ends_with_the_last_who_waits_for_it(
    make_shop: MakeShop, puller: Puller, line: FaultProxy, engine: PrivateEngine
) -> None:
    shop = make_shop(ballast=4 * MEGABYTE)
    shop.line.stall(at=MEGABYTE)
    request = request_for(shop.image)
    first, last = (asyncio.create_task(puller.pull(request, deploy_time=5)) for _ in range(2))
    await until(lambda: shop.asked(BLOBS))
    first.cancel()
    await asyncio.wait({first})
    assert not last.done()
    shop.line.behave()
    last.cancel()
    await asyncio.wait({last})
    assert len(pulls(line)) == 1
    assert (await puller.pull(request, deploy_time=5))["RepoTags"] == [shop.image]
    assert len(pulls(line)) == 2


async def test_who_comes_while_a_pull_is_being_given_up_gets_one_of_its_own(
    make_shop: MakeShop, puller: Puller, line: FaultProxy
) -> None:
    shop = make_shop(ballast=4 * MEGABYTE)
    shop.line.rate = MEGABYTE
    request = request_for(shop.image)
    first = asyncio.create_task(puller.pull(request, deploy_time=5))
    await until(lambda: shop.asked(BLOBS))
    shop.line.behave()
    first.cancel()
    await asyncio.sleep(0)  # it has heard of it, and has not ended
    assert (await puller.pull(request, deploy_time=5))["RepoTags"] == [shop.image]
    assert first.cancelled()
    assert len(pulls(line)) == 2


async def test_a_failure_is_for_all_who_wait(make_shop: MakeShop, puller: Puller, line: FaultProxy) -> None:
    request = request_for(make_shop().image.replace(":2", ":99"))
    results = await asyncio.gather(
        *(puller.pull(request, deploy_time=5) for _ in range(3)), return_exceptions=True
    )
    assert len(pulls(line)) == 1
    assert all(isinstance(one, PullFailed) and one.fault is PullFault.NOT_FOUND for one in results)
