"""The new image is for the platform that the container runs on, whatever the host's is."""

import secrets
from collections.abc import Mapping

import pytest

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.images import make_image, push
from testbed.platforms import push_for, push_index
from testbed.registry import Registry
from tests.integration.conftest import Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import request_for
from tests.integration.hosts import CONTAINERD, Host

pytestmark = [pytest.mark.engine, pytest.mark.containerd]

HERE, OTHER = "linux/amd64", "linux/arm64"


class Shelf:
    """A repository in the registry with images for several platforms; what they serve tells which."""

    def __init__(self, engine: PrivateEngine, registry: Registry) -> None:
        self.name = f"{registry.host}/test-{secrets.token_hex(4)}/api"
        self._engine = engine

    def put(self, tag: str, *platforms: str) -> str:
        """An index of images for these platforms under this tag."""
        images = {platform: self.make(tag, platform) for platform in platforms}
        push_index(self._engine.sandbox, f"{self.name}:{tag}", images)
        return f"{self.name}:{tag}"

    def put_single(self, tag: str, platform: str) -> str:
        """One image, not an index."""
        image = self.make(tag, platform)
        push_for(self._engine.sandbox, f"{self.name}:{tag}", image, platform)
        return f"{self.name}:{tag}"

    def make(self, tag: str, platform: str) -> str:
        """An image that serves these, under a tag of its own in the registry; returns the tag."""
        own = f"{tag}-{platform.replace('/', '-')}"
        served: Mapping[str, bytes] = {"/www/index.html": f"{tag} {platform}".encode()}
        make_image(
            self._engine, f"{self.name}:{own}", files=served, changes=[f"ENV FOR={platform} TAG={tag}"]
        )
        push(self._engine, f"{self.name}:{own}")
        self._engine.docker("rmi", f"{self.name}:{own}")
        return own


@pytest.fixture
def shelf(engine: PrivateEngine, registry: Registry) -> Shelf:
    return Shelf(engine, registry)


def serves(engine: PrivateEngine, name: str) -> str:
    return engine.docker("exec", name, "cat", "/www/index.html")


@pytest.mark.newest
@pytest.mark.parametrize("platform", [HERE, OTHER])
async def test_a_container_stays_on_its_platform(
    shelf: Shelf,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    platform: str,
) -> None:
    image = shelf.put("1", HERE, OTHER)
    engine.docker("pull", f"--platform={platform}", image)
    name = make_container(image, "api", f"--platform={platform}")
    assert serves(engine, name) == f"1 {platform}"
    two = shelf.put("2", HERE, OTHER)
    engine.docker("pull", two)  # somebody has, for the host's own
    for outcome in (Outcome.DEPLOYED, Outcome.UNCHANGED):
        report = await deploy(two)
        assert report.outcome is outcome, report.reason
        assert serves(engine, name) == f"2 {platform}"
    assert {f"FOR={platform}", "TAG=2"} <= set(inspect(name)["Config"]["Env"])


async def test_the_same_tag_for_all_platforms_again_is_deployed_on_each(
    shelf: Shelf, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    image = shelf.put("1", HERE, OTHER)
    engine.docker("pull", f"--platform={OTHER}", image)
    name = make_container(image, "api", f"--platform={OTHER}")
    engine.docker("tag", image, f"{shelf.name}:kept")
    images = {platform: shelf.make("new", platform) for platform in (HERE, OTHER)}
    push_index(engine.sandbox, image, images)
    report = await deploy(image)
    assert report.outcome is Outcome.DEPLOYED, report.reason
    assert serves(engine, name) == f"new {OTHER}"


@pytest.mark.newest
@pytest.mark.parametrize("single", [False, True], ids=["index", "single"])
async def test_an_image_that_is_not_for_its_platform_fails_before_anything_is_stopped(
    shelf: Shelf,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    single: bool,
) -> None:
    image = shelf.put("1", HERE, OTHER)
    engine.docker("pull", image)
    name = make_container(image, "api")
    before = inspect(name)
    two = shelf.put_single("2", OTHER) if single else shelf.put("2", OTHER)
    report = await deploy(two)
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert "build the image for the platform that the container runs on" in report.reason
    assert inspect(name)["State"] == before["State"]


@pytest.mark.parametrize(
    ("old", "new"), [(HERE, f"{HERE}/v2"), (f"{HERE}/v2", HERE), (HERE, "linux/x86_64"), (HERE, "/")]
)
async def test_another_variant_or_name_of_the_hosts_own_platform_is_no_other_platform(
    shelf: Shelf,
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
    line: FaultProxy,
    old: str,
    new: str,
) -> None:
    """Where the engine runs it without being told a platform, Lookout lets it."""
    image = shelf.put_single("1", old)
    engine.docker("pull", image)
    name = make_container(image, "api")
    report = await deploy(shelf.put_single("2", new))
    assert report.outcome is Outcome.DEPLOYED, report.reason
    assert serves(engine, name) == f"2 {new}"
    assert not [request for request in line.requests if "platform=" in request]


@pytest.mark.parametrize("by_digest", [False, True])
async def test_an_index_that_is_here_for_the_host_is_one_for_another_platform_too(
    shelf: Shelf,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    engine: PrivateEngine,
    host: Host,
    by_digest: bool,
) -> None:
    """The classic store knows one image of a digest; it says so, and nothing is gained by trying again."""
    same = shelf.make("same", OTHER)
    image, two = f"{shelf.name}:1", f"{shelf.name}:2"
    push_index(engine.sandbox, image, {HERE: shelf.make("a", HERE), OTHER: shelf.make("a", OTHER)})
    engine.docker("pull", f"--platform={OTHER}", image)
    name = make_container(image, "api", f"--platform={OTHER}")
    digest = push_index(engine.sandbox, two, {HERE: shelf.make("b", HERE), OTHER: same})
    engine.docker("pull", two)
    request = request_for(two, digest=digest if by_digest else None)
    report = await make_deployer(pull_timeout=5).deploy(request)
    if by_digest and host.flavour != CONTAINERD:
        assert (report.outcome, report.transient) == (Outcome.FAILED, False)
        assert "remove the image of this digest that is here for another platform" in report.reason
        return
    assert report.outcome is Outcome.DEPLOYED, report.reason
    assert serves(engine, name) == f"same {OTHER}"


async def test_containers_for_several_platforms_are_not_mixed_up(
    shelf: Shelf, make_container: MakeContainer, deploy: Deploy, inspect: Inspect, engine: PrivateEngine
) -> None:
    image = shelf.put("1", HERE, OTHER)
    names = []
    for platform in (HERE, OTHER):
        engine.docker("pull", f"--platform={platform}", image)
        names.append(make_container(image, platform.rpartition("/")[2], f"--platform={platform}"))
    before = [inspect(name)["State"] for name in names]
    report = await deploy(shelf.put("2", HERE, OTHER))
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert f"{names[0]} is for {HERE}" in report.reason
    assert f"{names[1]} is for {OTHER}" in report.reason
    assert [inspect(name)["State"] for name in names] == before


@pytest.mark.parametrize("by", ["digest", "tag and digest", "id", "short id"])
async def test_a_container_that_was_made_by_digest_or_by_an_image_id_is_deployed(
    shelf: Shelf,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    by: str,
) -> None:
    image = shelf.put("1", HERE)
    engine.docker("pull", image)
    image_id = engine.docker("image", "inspect", "--format={{.Id}}", image)
    digest = engine.docker("image", "inspect", "--format={{index .RepoDigests 0}}", image).partition("@")[2]
    reference = {
        "digest": f"{shelf.name}@{digest}",
        "tag and digest": f"{image}@{digest}",
        "id": image_id,
        "short id": image_id.partition(":")[2][:12],
    }[by]
    name = make_container(reference, "api")
    two = shelf.put("2", HERE)
    for outcome in (Outcome.DEPLOYED, Outcome.UNCHANGED):
        report = await deploy(two)
        assert report.outcome is outcome, report.reason
    assert inspect(name)["Config"]["Image"] == two
    assert serves(engine, name) == f"2 {HERE}"
