"""What people run: projects of real Compose v2, deployed and then held against what Compose makes of them.

Every sample is brought up by `compose up`, one new tag per service is deployed, and Compose is asked
again. It must know every container as its own and leave it alone, just as it does without Lookout.
"""

import asyncio
import datetime
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.typing import EventDict

from lookout.model import Json, Outcome, Report
from lookout.names import name_of
from testbed.compose import SUITES, Compose, ComposeFailed
from testbed.engine import PrivateEngine
from testbed.images import make_image, push
from testbed.registry import Registry
from tests.integration.conftest import Inspect, MakeDeployer
from tests.integration.deploys import leftovers, request_for, serving
from tests.integration.queues import until
from tests.integration.watching import page, volumes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

SAMPLES = Path(__file__).with_name("compose_samples")
PROJECT = "com.docker.compose.project"
IMAGE = "com.docker.compose.image"
REPLACE = "com.docker.compose.replace"
SWAP = "lookout.swap."
# Run beside the registry: it makes a tag a list of the one image that the tag was, as multi-platform images are.
LIST = """
import json, sys
from urllib.request import Request, urlopen
accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
with urlopen(Request(sys.argv[1], headers={"Accept": accept})) as answer:
    manifest, kind = answer.read(), answer.headers["Content-Type"]
    digest = answer.headers["Docker-Content-Digest"]
platform = {"architecture": sys.argv[2], "os": "linux"}
entry = {"mediaType": kind, "size": len(manifest), "digest": digest, "platform": platform}
oci = "application/vnd.oci.image.index.v1+json"
kind = oci if "oci" in kind else "application/vnd.docker.distribution.manifest.list.v2+json"
listed = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
headers = {"Content-Type": kind}
urlopen(Request(sys.argv[1], json.dumps(listed).encode(), headers, method="PUT")).close()
"""


class Stack:
    """A sample as one person runs it: a project of its own, and a repository for each service's image."""

    def __init__(
        self, engine: PrivateEngine, registry: Registry, make_deployer: MakeDeployer, file: Path, suite: str
    ):
        self.engine = engine
        self.compose = Compose(engine, suite, file)
        self._repositories = f"{registry.host}/{self.compose.name.removeprefix('lookout-')}"
        self._make_deployer = make_deployer
        self._images: dict[str, list[str]] = {}
        self._variables: dict[str, str] = {}

    def prepare(self, services: dict[str, list[str]], **variables: str) -> None:
        """The services of the sample, with Dockerfile lines for their images, and variables of its file."""
        self._images = services
        self._variables = variables

    def start(self, services: dict[str, list[str]], **variables: str) -> None:
        """Make tag 1 of the services' images and bring the project up."""
        self.prepare(services, **variables)
        self.make("1")
        self.point_to("1")
        self.compose.up()

    def image(self, service: str, tag: str) -> str:
        return f"{self._repositories}/{service}:{tag}"

    def make(self, tag: str, content: str = "", *services: str) -> None:
        """Push a tag of every service's image, or of these; it answers with `content`, or else with the tag."""
        files = {"/www/index.html": (content or tag).encode()}
        for service in services or self._images:
            make_image(self.engine, self.image(service, tag), changes=self._images[service], files=files)
            push(self.engine, self.image(service, tag))

    def make_list(self, tag: str, content: str, *services: str) -> None:
        """As `make`, but as a list of images for platforms, which has a digest of its own."""
        self.make(tag, content, *services)
        architecture = self.engine.docker("version", "--format={{.Server.Arch}}")
        for service in services or self._images:
            host, _, path = self.image(service, tag).partition("/")
            url = f"http://{host}/v2/{path.removesuffix(f':{tag}')}/manifests/{tag}"
            self.engine.sandbox.run([sys.executable, "-I", "-c", LIST, url, architecture])
            # What was pushed is not what is pulled now.
            self.engine.docker("rmi", "--force", self.image(service, tag))

    def point_to(self, tag: str, **variables: str) -> None:
        """Edit the project's files: every image has this tag now."""
        images = {f"IMAGE_{service.upper()}": self.image(service, tag) for service in self._images}
        self._variables |= variables
        self.compose.write(images | self._variables)

    async def deploy(
        self, tag: str, *services: str, monitor: float = 0.5, keep: int | None = None
    ) -> dict[str, Report]:
        """Deploy this tag of all services, or of these, side by side; the reports by service."""
        deployer = self._make_deployer(deploy_time=30, monitor=monitor, keep=keep)
        wanted = services or tuple(self._images)
        requests = [deployer.deploy(request_for(self.image(service, tag))) for service in wanted]
        return dict(zip(wanted, await asyncio.gather(*requests), strict=True))

    def container(self, service: str, number: int = 1) -> str:
        return f"{self.compose.name}-{service}-{number}"

    def read(self, container: str, path: str) -> str:
        """A file in a container: its content, mode and owner. Root reads it: not all are for all."""
        script = f"cat {path}; stat -c '%a %u:%g' {path}"
        return self.engine.inside(container, "sh", "-c", script)

    def inside(self, container: str, *command: str) -> str:
        return self.engine.inside(container, *command)


MakeStack = Callable[..., Stack]


@pytest.fixture
def stack(
    engine: PrivateEngine, registry: Registry, make_deployer: MakeDeployer, tmp_path: Path
) -> Iterator[MakeStack]:
    """A sample by its name, not started yet; it is removed when the test ends. Compose is that of a suite."""
    made: list[Stack] = []
    before = volumes(engine)

    def make(sample: str, suite: str = engine.suite) -> Stack:
        folder = tmp_path / sample
        shutil.copytree(SAMPLES, folder)
        made.append(Stack(engine, registry, make_deployer, folder / f"{sample}.yaml", suite))
        return made[-1]

    yield make
    for one in made:
        one.compose.down()
        assert not remains(one)
    assert not leftovers(engine)
    # Compose mounts anonymous volumes by name when it recreates, as Lookout does, and then leaves them.
    if left := volumes(engine) - before:
        engine.docker("volume", "rm", *left)


class Device:
    """A device that the engine knows by a CDI description."""

    path = "/dev/lookout"

    def __init__(self, engine: PrivateEngine) -> None:
        self._run = engine.sandbox.run
        self._file = "/run/cdi/lookout-test.json"

    def plug(self) -> None:
        node = {"path": self.path, "hostPath": "/dev/zero"}
        device = {"name": "zero", "containerEdits": {"deviceNodes": [node]}}
        description = {"cdiVersion": "0.5.0", "kind": "lookout.test/device", "devices": [device]}
        script = 'mkdir -p /run/cdi; echo "$1" > "$2.new"; mv "$2.new" "$2"'
        self._run(["sh", "-c", script, "sh", json.dumps(description), self._file])

    def unplug(self) -> None:
        self._run(["rm", self._file])


@pytest.fixture
def device(engine: PrivateEngine) -> Iterator[Device]:
    """A device that is there; only newer engines know such without experiments."""
    if engine.suite != "forky":
        pytest.skip("this engine knows no CDI devices without experiments")
    device = Device(engine)
    device.plug()
    yield device
    device.unplug()


def remains(stack: Stack) -> list[str]:
    """What is still there of a project."""
    project = f"--filter=label={PROJECT}={stack.compose.name}"
    return [
        *stack.engine.docker("ps", "--all", "--format={{.Names}}", project).split(),
        *stack.engine.docker("network", "ls", "--format={{.Name}}", project).split(),
        *stack.engine.docker("volume", "ls", "--format={{.Name}}", project).split(),
    ]


def up_again(stack: Stack) -> set[str]:
    """The names of the containers that `compose up` made anew."""
    before = stack.compose.ids()
    stack.compose.up()
    after = stack.compose.ids()
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def touched_by_up(stack: Stack, *arguments: str) -> set[str]:
    """The names of the containers that `compose up` made anew, or started again."""
    before = lives(stack)
    stack.compose.up(*arguments)
    after = lives(stack)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def lives(stack: Stack) -> dict[str, tuple[str, str]]:
    """Of the project's containers, by name: the id, and since when it runs."""
    listed = stack.engine.listed(label=f"{PROJECT}={stack.compose.name}")
    found = [stack.engine.inspected(container["Id"]) for container in listed]
    return {name_of(container): (container["Id"], container["State"]["StartedAt"]) for container in found}


def assert_own(stack: Stack, tag: str, **counts: int) -> None:
    """Compose sees all services running on that tag, each under the name that it gives, and no more."""
    listed = stack.compose.ps()
    expected = {
        (stack.container(service, number), service, stack.image(service, tag), "running")
        for service, count in counts.items()
        for number in range(1, count + 1)
    }
    assert {(c["Name"], c["Service"], c["Image"], c["State"]) for c in listed} == expected
    assert set(stack.compose.run("config", "--services").split()) == counts.keys()


def remarks(logs: list[EventDict]) -> list[tuple[str, str]]:
    """What was said of `docker compose up`, and of which container."""
    said = [(event["container"], event["remark"]) for event in logs if event["event"] == "remark"]
    return [(container, remark) for container, remark in said if "compose up" in remark]


def has(stack: Stack, image: str) -> bool:
    """Whether the engine has an image of this name."""
    return bool(stack.engine.docker("images", "--quiet", image))


def own_labels(container: Json) -> dict[str, str]:
    """Its labels without Lookout's, and without the trace of a recreation by Compose."""
    labels = container["Config"]["Labels"]
    return {k: v for k, v in labels.items() if not k.startswith(SWAP) and k != REPLACE}


def inline_files(shop: Stack) -> list[tuple[str, str]]:
    """The inline configs and secrets of the sample `app`: in which container, and where."""
    app, jobs = shop.container("app"), shop.container("jobs")
    configs = ("/settings", "/etc/app/routes.json")
    secrets = ("/run/secrets/token", "/run/secrets/database_password")
    return [(app, path) for path in (*configs, *secrets)] + [
        (jobs, path) for path in ("/srv/settings", "/srv/password")
    ]


def was_put_there(stack: Stack, container: Json, path: str) -> bool:
    """Whether a file has the time that Compose gives to inline configs and secrets.

    It is in whole seconds, which the time of a file that a program writes practically never is, and
    between the creation of the container and its start, rounded to the nearest second.
    """
    said = stack.inside(container["Id"], "stat", "-c", "%Y %y", path)
    seconds, fraction = int(said.split()[0]), said.split(".")[1].split()[0]
    created, started = map(moment, (container["Created"], container["State"]["StartedAt"]))
    return int(fraction) == 0 and created - 1 < seconds < started + 1


def moment(text: str) -> float:
    """Seconds of a time as the engine writes it, whose nanoseconds Python does not read."""
    return datetime.datetime.fromisoformat(text[:19] + "+00:00").timestamp() + float(f"0{text[19:-1]}")


def mounted(container: Json) -> set[tuple[str, str]]:
    """Where which volume is mounted."""
    return {(m["Destination"], m["Name"]) for m in container["Mounts"] if m["Type"] == "volume"}


# The samples


async def test_a_reverse_proxy_keeps_its_routes_networks_and_ports(
    stack: MakeStack, inspect: Inspect
) -> None:
    shop = stack("proxy")
    name = f"{shop.compose.name}-gateway"
    shop.start(
        {"proxy": ['ENTRYPOINT ["/app"]'], "shop": []},
        CONTAINER_PROXY=name,
        PORT_WEB="18090",
        SUBNET="31",
    )
    old = inspect(name)
    shop.inside(name, "touch", "/letsencrypt/acme.json")
    shop.make("2")
    assert not up_again(shop)

    reports = await shop.deploy("2")

    assert {report.outcome for report in reports.values()} == {Outcome.DEPLOYED}
    new = inspect(name)
    assert own_labels(new) == own_labels(old)
    assert new["Args"] == old["Args"]
    assert new["NetworkSettings"]["Ports"].keys() == old["NetworkSettings"]["Ports"].keys()
    assert new["HostConfig"] == old["HostConfig"]
    assert new["NetworkSettings"]["Networks"].keys() == old["NetworkSettings"]["Networks"].keys()
    edge = new["NetworkSettings"]["Networks"][f"{shop.compose.name}_edge"]
    assert edge["IPAddress"] == "10.97.31.10"
    assert {"gateway", "www.shop.example", "proxy"} <= set(edge["Aliases"])
    assert shop.inside(name, "wget", "-q", "-O-", "http://backend:8080/") == "2"
    assert shop.inside(shop.container("shop"), "wget", "-q", "-O-", "http://proxy:8080/") == "2"
    assert page(shop.engine, "http://127.0.0.1:18090/") == "2"
    assert shop.inside(name, "ls", "/letsencrypt") == "acme.json"
    assert not up_again(shop)

    shop.point_to("2")
    shop.compose.up()
    assert shop.inside(name, "ls", "/letsencrypt") == "acme.json"
    assert page(shop.engine, "http://127.0.0.1:18090/") == "2"


async def test_a_database_keeps_every_volume_with_its_data(stack: MakeStack, inspect: Inspect) -> None:
    shop = stack("database")
    paths = ("/var/lib/postgresql/data", "/var/cache/db", "/var/log/db", "/var/lib/backups")
    shop.start({"db": ["VOLUME /var/lib/backups", "STOPSIGNAL SIGTERM"], "api": []})
    db = shop.container("db")
    for path in paths:
        shop.inside(db, "sh", "-c", f"echo kept > {path}/file")
    old = inspect(db)
    shop.make("2")
    assert not up_again(shop)

    reports = await shop.deploy("2")

    assert {report.outcome for report in reports.values()} == {Outcome.DEPLOYED}
    new = inspect(db)
    assert new["State"]["Health"]["Status"] == "healthy"
    for field in ("Env", "StopSignal", "StopTimeout", "Healthcheck"):
        assert new["Config"][field] == old["Config"][field], field
    assert own_labels(new) == own_labels(old)
    assert new["HostConfig"]["ShmSize"] == 96 << 20
    assert mounted(new) == mounted(old)
    assert len(mounted(new)) == len(paths)
    for path in paths:
        assert shop.inside(db, "cat", f"{path}/file") == "kept"
    assert "orders" in shop.inside(db, "cat", "/docker-entrypoint-initdb.d/init.sql")
    assert_own(shop, "2", db=1, api=1)
    assert not up_again(shop)

    shop.point_to("2")
    shop.compose.up()
    assert_own(shop, "2", db=1, api=1)
    assert mounted(inspect(db)) == mounted(old)
    for path in paths:
        assert shop.inside(db, "cat", f"{path}/file") == "kept"


@pytest.mark.compat
@pytest.mark.parametrize("by", ["compose", "lookout"])
async def test_down_leaves_anonymous_volumes_of_what_was_recreated_by_either(
    stack: MakeStack, by: str
) -> None:
    """Who carries an anonymous volume over must name it; from then on it counts as a named one."""
    shop = stack("database")
    before = volumes(shop.engine)
    shop.start({"db": ["VOLUME /var/lib/backups"], "api": []})
    if by == "compose":
        shop.compose.up("--force-recreate")
    else:
        shop.make("2")
        await shop.deploy("2", "db")
    shop.compose.down()
    left = volumes(shop.engine) - before
    assert len(left) == len(("/var/cache/db", "/var/log/db", "/var/lib/backups"))
    assert not remains(shop)


async def test_what_shares_the_network_of_a_vpn_has_it_again(stack: MakeStack, inspect: Inspect) -> None:
    home = stack("vpn")
    home.start({"vpn": [], "torrent": [], "indexer": []}, PORT_WEB="18091")
    vpn, torrent, indexer = map(home.container, ("vpn", "torrent", "indexer"))
    home.inside(torrent, "touch", "/downloads/film")
    home.make("2")
    assert not up_again(home)
    # Compose finds the id of the shared container in what it holds its children against.
    home.compose.up("--force-recreate", "--no-deps", "vpn")
    assert up_again(home) == {torrent, indexer}
    old = inspect(vpn)

    reports = await home.deploy("2", "vpn")

    assert reports["vpn"].outcome is Outcome.DEPLOYED, reports
    new = inspect(vpn)
    assert new["HostConfig"] == old["HostConfig"]
    assert own_labels(new) == own_labels(old)
    for child in (torrent, indexer):
        assert inspect(child)["HostConfig"]["NetworkMode"] == f"container:{new['Id']}"
        assert "eth0" in home.inside(child, "ip", "link")
    assert page(home.engine, "http://127.0.0.1:18091/") == "1"
    assert home.inside(torrent, "ls", "/downloads") == "film"
    states = {(c["Name"], c["Image"], c["State"]) for c in home.compose.ps()}
    assert states == {
        (vpn, home.image("vpn", "2"), "running"),
        (torrent, home.image("torrent", "1"), "running"),
        (indexer, home.image("indexer", "1"), "running"),
    }
    assert up_again(home) == {torrent, indexer}

    reports = await home.deploy("2", "torrent", "indexer")
    assert {report.outcome for report in reports.values()} == {Outcome.DEPLOYED}
    assert page(home.engine, "http://127.0.0.1:18091/") == "2"
    assert_own(home, "2", vpn=1, torrent=1, indexer=1)
    assert not up_again(home)
    home.point_to("2")
    home.compose.up()
    assert_own(home, "2", vpn=1, torrent=1, indexer=1)


async def test_inline_configs_and_secrets_and_rare_options_are_kept(
    stack: MakeStack, inspect: Inspect
) -> None:
    shop = stack("app")
    shop.start(
        {"app": ["ENV LEVEL=error REGION=us-1 NEW=1"], "jobs": [], "cache": []},
        TOKEN="t0ken",
        PASSWORD="pa55",
    )
    names = app, jobs, _ = [shop.container(service) for service in ("app", "jobs", "cache")]
    files = inline_files(shop)
    mounted_files = [(app, "/etc/banner"), (app, "/run/secrets/from_a_file")]
    read = [shop.read(*file) for file in (*files, *mounted_files)]
    old = {name: inspect(name) for name in names}
    assert all(was_put_there(shop, old[name], path) for name, path in files)
    shop.inside(jobs, "sh", "-c", "echo mine > /srv/file")
    assert not was_put_there(shop, old[jobs], "/srv/file")
    shop.make("2")
    assert not up_again(shop)

    reports = await shop.deploy("2")

    assert {report.outcome for report in reports.values()} == {Outcome.DEPLOYED}
    for name in names:
        new = inspect(name)
        assert new["HostConfig"] == old[name]["HostConfig"]
        assert own_labels(new) == own_labels(old[name])
        for field in ("Env", "User", "WorkingDir", "Domainname", "StopTimeout"):
            assert new["Config"].get(field) == old[name]["Config"].get(field), field
    assert shop.inside(app, "hostname") == "app"
    assert_own(shop, "2", app=1, jobs=1, cache=1)
    assert [shop.read(*file) for file in (*files, *mounted_files)] == read
    assert "file" not in shop.inside(jobs, "ls", "/srv").split()
    assert not up_again(shop)
    shop.point_to("2")
    shop.compose.up()
    assert_own(shop, "2", app=1, jobs=1, cache=1)


async def test_a_migration_that_has_ended_is_left_alone(stack: MakeStack, inspect: Inspect) -> None:
    shop = stack("oneshot")
    shop.start({"migrate": [], "app": []})
    migrate, app = map(shop.container, ("migrate", "app"))
    old = inspect(migrate)
    shop.make("2")
    assert not up_again(shop)
    runs = len(shop.inside(app, "cat", "/data/log").split())

    reports = await shop.deploy("2")

    assert (reports["migrate"].outcome, reports["app"].outcome) == (Outcome.NOT_HERE, Outcome.DEPLOYED)
    assert inspect(migrate)["Id"] == old["Id"]
    assert inspect(app)["Config"]["Image"] == shop.image("app", "2")
    assert len(shop.inside(app, "cat", "/data/log").split()) == runs
    assert not up_again(shop)
    shop.point_to("2")
    shop.compose.up()
    states = {(c["Name"], c["Image"], c["State"]) for c in shop.compose.ps()}
    assert states == {
        (migrate, shop.image("migrate", "2"), "exited"),
        (app, shop.image("app", "2"), "running"),
    }


async def test_a_service_whose_gpu_is_not_there_is_left_alone_and_its_neighbour_deployed(
    stack: MakeStack, inspect: Inspect
) -> None:
    shop = stack("gpu")
    with pytest.raises(ComposeFailed, match="could not select device driver"):
        shop.start({"model": [], "web": []})
    model, web = map(shop.container, ("model", "web"))
    shop.engine.docker("start", web)
    old = inspect(model)
    shop.make("2")

    reports = await shop.deploy("2")

    assert (reports["model"].outcome, reports["web"].outcome) == (Outcome.NOT_HERE, Outcome.DEPLOYED)
    assert inspect(model) == old
    assert inspect(web)["Config"]["Image"] == shop.image("web", "2")


@pytest.mark.newest
async def test_a_device_request_is_kept(stack: MakeStack, inspect: Inspect, device: Device) -> None:
    lab = stack("cdi")
    lab.start({"model": []})
    model = lab.container("model")
    old = inspect(model)
    lab.make("2")
    assert not up_again(lab)

    reports = await lab.deploy("2")

    assert reports["model"].outcome is Outcome.DEPLOYED
    new = inspect(model)
    assert new["HostConfig"] == old["HostConfig"]
    assert [request["Driver"] for request in new["HostConfig"]["DeviceRequests"]] == ["cdi"]
    assert lab.inside(model, "ls", device.path) == device.path
    assert_own(lab, "2", model=1)
    assert not up_again(lab)


@pytest.mark.compat
async def test_a_container_whose_device_is_away_is_brought_back_with_it(
    stack: MakeStack, inspect: Inspect, device: Device
) -> None:
    """No engine tells beforehand that a device is missing, and its old container needs it as well."""
    lab = stack("cdi")
    lab.start({"model": []})
    model = lab.container("model")
    old = inspect(model)
    lab.make("2")
    device.unplug()

    reports = await lab.deploy("2")

    assert reports["model"].outcome is Outcome.ROLLBACK_FAILED
    device.plug()
    await until(lambda: serving(lab.engine, model) == old["Id"])
    await until(lambda: not leftovers(lab.engine))
    assert_own(lab, "1", model=1)


async def test_all_replicas_are_replaced(stack: MakeStack, inspect: Inspect) -> None:
    shop = stack("replicas")
    # `compose build` writes these into the image, where they equal those of the container.
    built = f"LABEL {PROJECT}={shop.compose.name} com.docker.compose.service=worker"
    shop.start({"worker": [built]})
    names = [shop.container("worker", number) for number in (1, 2, 3)]
    for name in names:
        shop.inside(name, "sh", "-c", f"echo {name} > /scratch/file")
    old = {name: inspect(name) for name in names}
    shop.prepare({"worker": []})  # the next image is not built by Compose
    shop.make("2")
    assert not up_again(shop)

    reports = await shop.deploy("2")

    assert set(reports["worker"].containers) == set(names)
    assert_own(shop, "2", worker=3)
    for name in names:
        assert own_labels(inspect(name)) == own_labels(old[name])
        assert shop.inside(name, "cat", "/scratch/file") == name
    assert not up_again(shop)

    shop.compose.up("--scale=worker=2")
    assert_own(shop, "2", worker=2)
    shop.point_to("2")
    shop.compose.up()
    assert_own(shop, "2", worker=3)


# After a deploy, with each version of Compose on each image store


@pytest.mark.containerd
@pytest.mark.parametrize("suite", SUITES)
async def test_up_after_deploys_of_the_tag_in_the_file_and_of_others(
    stack: MakeStack, inspect: Inspect, logs: list[EventDict], suite: str
) -> None:
    shop = stack("afterwards", suite)
    web, again, always, vpn, child, worker = map(
        shop.container, ("web", "web", "always", "vpn", "child", "worker"), (1, 2, 1, 1, 1, 1)
    )
    shop.prepare({"app": [], "worker": []}, WORKER=shop.image("worker", "").rstrip(":"), TAG="1")
    shop.make_list("latest", "first", "app")
    shop.make("1", "", "worker")
    shop.point_to("latest")
    shop.compose.up()

    # The tag of the file has moved on: its image is a list for platforms, whose digest some stores take for its id.
    shop.make_list("latest", "second", "app")
    reports = await shop.deploy("latest", "app")
    assert set(reports["app"].containers) == {web, again, always, vpn, child}
    for name in reports["app"].containers:
        assert shop.inside(name, "cat", "/www/index.html") == "second"
        assert inspect(name)["Config"]["Labels"][IMAGE] == inspect(name)["Image"]
    assert [container for container, _ in remarks(logs)] == [child]
    # Compose, too, makes what shares a network anew when the container that owns it is another one.
    assert touched_by_up(shop) == {child}
    assert touched_by_up(shop, "--pull=always") == set()

    # Another tag, and the image of the file's is cleaned up: Compose pulls it for nothing.
    logs.clear()
    shop.make("2", "", "worker")
    await shop.deploy("2", "worker", keep=0)
    ((name, remark),) = remarks(logs)
    assert name == worker
    for known in ("worker:1", f"service worker of project {shop.compose.name}", str(shop.compose.file)):
        assert known in remark
    await until(lambda: not has(shop, shop.image("worker", "1")))
    assert touched_by_up(shop) == set()
    assert has(shop, shop.image("worker", "1"))
    deployed = inspect(worker)
    assert deployed["Config"]["Image"] == shop.image("worker", "2")

    # The file learns of it: one more recreation, on the same image.
    shop.point_to("latest", TAG="2")
    assert touched_by_up(shop) == {worker}
    assert inspect(worker)["Image"] == deployed["Image"]

    # Another tag once more, and back to that of the file, which has moved meanwhile.
    shop.make("3", "", "worker")
    await shop.deploy("3", "worker")
    shop.make("2", "moved", "worker")
    logs.clear()
    await shop.deploy("2", "worker")
    assert not remarks(logs)
    assert touched_by_up(shop) == set()
    assert shop.inside(worker, "cat", "/www/index.html") == "moved"

    # A change of the service, of which the file does not know the tag: that of the file comes back.
    await shop.deploy("3", "worker")
    shop.point_to("latest", LEVEL="debug")
    assert touched_by_up(shop) == {worker}
    assert inspect(worker)["Config"]["Image"] == shop.image("worker", "2")


# Compose while a deploy goes on


async def test_compose_in_the_middle_of_a_swap_does_harm_that_is_made_good(
    stack: MakeStack, inspect: Inspect
) -> None:
    """Compose takes old and new for one replica too many; which of them it removes depends on its version."""
    shop = stack("replicas")
    shop.start({"worker": []}, WORKERS="1")
    worker = shop.container("worker")
    old = inspect(worker)
    shop.make("2")
    deploying = asyncio.create_task(shop.deploy("2", monitor=8))
    running = {"Name": worker, "State": "running"}
    await until(lambda: any(c["ID"] != old["Id"] and running.items() <= c.items() for c in shop.compose.ps()))

    await asyncio.to_thread(shop.compose.up)

    deployed = (await deploying)["worker"].outcome is Outcome.DEPLOYED
    # A rollback that met the removal half done is repeated until it holds.
    await until(lambda: [c["Name"] for c in shop.compose.ps()] == [worker])
    await until(lambda: serving(shop.engine, worker))
    assert (inspect(worker)["Id"] != old["Id"]) is deployed
    assert_own(shop, "2" if deployed else "1", worker=1)


async def test_a_rollback_is_no_failure_where_the_new_container_is_removed_meanwhile(
    stack: MakeStack, inspect: Inspect, make_deployer: MakeDeployer
) -> None:
    """As Compose removes it, at any moment."""
    shop = stack("replicas")
    shop.start({"worker": []}, WORKERS="1")
    worker = shop.container("worker")
    old = inspect(worker)
    shop.prepare({"worker": ['CMD ["false"]']})
    shop.make("2")
    deployer = make_deployer()
    read = deployer._engine.log_tail

    async def removed(container: str, **options: int) -> str:
        shop.engine.docker("rm", "--force", "--volumes", container)
        return await read(container, **options)

    deployer._engine.log_tail = removed  # type: ignore[method-assign]
    try:
        report = await deployer.deploy(request_for(shop.image("worker", "2")))
    finally:
        deployer._engine.log_tail = read  # type: ignore[method-assign]

    assert inspect(worker)["Id"] == old["Id"]
    assert inspect(worker)["State"]["Running"]
    assert report.outcome is Outcome.ROLLED_BACK


async def test_inline_configs_are_kept_that_compose_has_written_anew_and_again_by_the_next_deploy(
    stack: MakeStack,
) -> None:
    """Compose from 2.40 on writes them again when it starts what was stopped, at any later time."""
    shop = stack("app")
    shop.start({"app": [], "jobs": [], "cache": []}, TOKEN="t0ken", PASSWORD="pa55")
    files = inline_files(shop)
    read = [shop.read(*file) for file in files]
    shop.compose.run("stop", "app", "jobs")
    shop.compose.run("start", "app", "jobs")
    shop.engine.docker("restart", shop.container("app"))
    for tag in ("2", "3"):
        shop.make(tag)

        reports = await shop.deploy(tag, "app", "jobs")

        assert {report.outcome for report in reports.values()} == {Outcome.DEPLOYED}
        assert [shop.read(*file) for file in files] == read
