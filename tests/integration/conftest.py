"""The real parts that integration tests use: engines with two registries each, and a queue server.

Each is started once a worker, when a test first asks for it.
"""

import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from structlog.testing import capture_logs
from structlog.typing import EventDict

from lookout.deployer import Deployer
from lookout.engine import Engine
from lookout.keychain import Keychain
from lookout.model import Json, Report
from lookout.sqs import Queue
from testbed import product
from testbed.debian import Unavailable
from testbed.ecr import Ecr
from testbed.engine import PrivateEngine, version
from testbed.faultproxy import FaultProxy
from testbed.faulty_registry import FaultyRegistry
from testbed.faulty_sqs import FaultySqs
from testbed.gate import Gate
from testbed.images import make_image, push
from testbed.registry import Registry
from testbed.scripted_sqs import ScriptedSqs
from testbed.sqs import LocalSqs
from testbed.token_server import TokenServer
from tests.integration.crashes import Findings
from tests.integration.deploys import new_deployer, request_for
from tests.integration.hosts import CONTAINERD, FLAVOURS, NEWEST, Flavour, Host, needed, run_flavours
from tests.integration.queues import connected
from tests.integration.service import Service

MakeContainer = Callable[..., str]
AppImage = Callable[..., str]
Inspect = Callable[[str], Json]
MakeDeployer = Callable[..., Deployer]
MakeLookout = Callable[[str], str]
Deploy = Callable[..., Awaitable[Report]]


def pytest_configure() -> None:
    """Whoever has started the tests may ignore signals, as `nohup` does, and what they start would do so too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_report_header() -> list[str]:
    """The versions of the engines, which are unpacked for that if they were not yet."""
    flavours = run_flavours()
    also = [] if NEWEST in flavours else [f"engine: {_described(NEWEST)}, for what is marked newest"]
    return [*(f"engine: {_described(flavour)}" for flavour in flavours), *also]


def _described(flavour: Flavour) -> str:
    try:
        return f"{flavour.name} {version(flavour.suite)}"
    except Unavailable as reason:
        return f"{flavour.name} cannot be had: {reason}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a comparison of engines is for, where the run is none."""
    if os.environ.get("LOOKOUT_TEST_COMPAT"):
        return
    left_out = [item for item in items if item.get_closest_marker("compat")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


POINTS = "points at which something died"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many points were tried of how many; the tests note them, whichever process they ran in."""
    noted: dict[str, tuple[int, int, list[str]]] = {}
    for report in chain.from_iterable(terminalreporter.stats.values()):
        for key, value in getattr(report, "user_properties", ()):
            if key == POINTS and report.when == "call":
                name, tried, every, missed = value
                before = noted.get(name, (0, 0, []))
                noted[name] = (before[0] + tried, max(before[1], every), before[2] + missed)
    if not noted:
        return
    terminalreporter.section(POINTS)
    for name, (tried, every, missed) in sorted(noted.items()):
        also = f"; not met: {', '.join(missed)}" if missed else ""
        terminalreporter.write_line(f"{name}: {tried} of {every}{also}")
    total = sum(tried for tried, _, _ in noted.values())
    terminalreporter.write_line(f"all: {total} of {sum(every for _, every, _ in noted.values())}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a host on every engine of the run, and what is marked so on others too, or only there."""
    if "host" not in metafunc.fixturenames:
        return
    flavours = list(run_flavours())
    also = {"newest": NEWEST, "containerd": CONTAINERD}
    marks = {flavour: metafunc.definition.get_closest_marker(name) for name, flavour in also.items()}
    marked = [flavour for flavour, mark in marks.items() if mark]
    if any(mark and mark.kwargs.get("only") for mark in marks.values()):
        flavours = []
    flavours += [flavour for flavour in marked if flavour not in flavours]
    # With one engine the names of tests stay as they are, unless a mark says that there may be more.
    if marked or len(flavours) > 1:
        metafunc.parametrize("host", flavours, indirect=True, ids=[flavour.name for flavour in flavours])


@pytest.fixture(scope="session")
def hosts() -> Iterator[Mapping[Flavour, Host]]:
    """A host for each flavour; none has started anything yet."""
    hosts = {flavour: Host(flavour) for flavour in FLAVOURS.values()}
    yield hosts
    for host in hosts.values():
        host.close()


@pytest.fixture
def host(request: pytest.FixtureRequest, hosts: Mapping[Flavour, Host]) -> Iterator[Host]:
    """The host that this test is for: of the run's engine, or of the one in the test's name.

    One whose engine ends is the test's own.
    """
    flavour = getattr(request, "param", None) or run_flavours()[0]
    if not request.node.get_closest_marker("engine_ends"):
        yield hosts[flavour]
        return
    host = Host(flavour)
    yield host
    host.close()


@pytest.fixture
def engine(host: Host) -> PrivateEngine:
    """A private engine; without one, tests are skipped on a person's machine and fail in CI."""
    with needed():
        return host.engine


@pytest.fixture
def registry(engine: PrivateEngine, host: Host) -> Registry:
    """A registry that is open to all."""
    return host.registry


@pytest.fixture
def private_registry(engine: PrivateEngine, host: Host) -> Registry:
    """A registry that asks for the name and password in its `users`."""
    return host.private_registry


@pytest.fixture
def registry_line(engine: PrivateEngine, registry: Registry) -> Iterator[FaultyRegistry]:
    """A faulty line to the registry that is open to all; it does no wrong yet."""
    with FaultyRegistry(engine.sandbox, "registry.test", 5000) as line:
        yield line


@pytest.fixture
def token_server(engine: PrivateEngine) -> Iterator[TokenServer]:
    """A token server that knows a user by the password and by an identity token."""
    with TokenServer(engine.sandbox, 5003, {"user": "password"}, identities={"identity": "user"}) as server:
        yield server


@pytest.fixture
def token_registry(engine: PrivateEngine, token_server: TokenServer) -> Iterator[Registry]:
    """A registry that wants a token of that server."""
    with Registry(engine.sandbox, "other.test", tokens=token_server) as registry:
        yield registry


@pytest.fixture(scope="session", autouse=True)
def sdk_reads_once() -> Iterator[None]:
    """The SDK reads what it knows of its services once a worker, and not once for each client."""
    once = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: once(path))
        yield


@pytest.fixture(scope="session")
def sqs() -> Iterator[LocalSqs]:
    """A queue server."""
    with LocalSqs() as server:
        yield server


@pytest.fixture
def ecr(engine: PrivateEngine, registry: Registry, sqs: LocalSqs) -> Iterator[Ecr]:
    """ECR with what is pushed to the registry that is open to all; that server gives the tokens."""
    with Ecr(engine.sandbox, 5000, sqs) as ecr:
        yield ecr


@pytest.fixture
def queue_url(sqs: LocalSqs) -> str:
    """A queue of its own for each test, on which messages come back soon."""
    return sqs.create_queue(f"test-{secrets.token_hex(4)}", VisibilityTimeout=2)


@pytest.fixture
async def queue(sqs: LocalSqs, queue_url: str) -> AsyncIterator[Queue]:
    """That queue, as Lookout drives it."""
    async with connected(queue_url, sqs.environment()) as queue:
        yield queue


@pytest.fixture
def queue_line(sqs: LocalSqs) -> Iterator[FaultySqs]:
    """A faulty line to the queue server; it does no wrong yet."""
    with FaultySqs(sqs.endpoint) as line:
        yield line


@pytest.fixture
def service(engine: PrivateEngine, sqs: LocalSqs, tmp_path: Path) -> Iterator[Service]:
    """A queue, on which no Lookout has been started yet."""
    service = Service(engine, sqs, tmp_path)
    yield service
    service.close()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedSqs]:
    """A queue server that fails as it is told."""
    async with ScriptedSqs() as server:
        yield server


@pytest.fixture
async def scripted_queue(scripted: ScriptedSqs) -> AsyncIterator[Queue]:
    """Its queue, as Lookout drives it."""
    async with connected(scripted.queue_url) as queue:
        yield queue


@pytest.fixture
def note_points(record_property: Callable[[str, object], None]) -> Callable[[str, Findings, int], None]:
    """Let the summary tell how many points of a matrix were tried, of `every`, and fail with what was found."""

    def note(name: str, findings: Findings, every: int) -> None:
        record_property(POINTS, [name, findings.tried, every, findings.missed])
        if findings.failures:
            pytest.fail(findings.report(), pytrace=False)

    return note


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    """What is logged during the test."""
    with capture_logs() as events:
        yield events


@pytest.fixture
def app_image(engine: PrivateEngine, registry: Registry) -> AppImage:
    """Make and push an application image of a tag: `app_image("1")` is 127.0.0.1:5000/<unique>/api:1.

    All images of a test share one name; the keyword arguments are those of `make_image`.
    """
    name = f"{registry.host}/test-{secrets.token_hex(4)}/api"

    def make(tag: str, **options: Any) -> str:
        make_image(engine, f"{name}:{tag}", **options)
        push(engine, f"{name}:{tag}")
        return f"{name}:{tag}"

    return make


@pytest.fixture
def make_container(engine: PrivateEngine) -> Iterator[MakeContainer]:
    """Run a container of an image and return its name: `make_container(image, "web", "--memory=64m")`.

    What Lookout makes of it has the same label, and is removed with it when the test ends.
    """
    run = secrets.token_hex(4)

    def make(image: str, suffix: str, *arguments: str) -> str:
        name = f"lookout-test-{run}-{suffix}"
        engine.docker("run", "-d", f"--label=lookout.test={run}", f"--name={name}", *arguments, image)
        return name

    yield make
    engine.remove_all(label=f"lookout.test={run}")


@pytest.fixture
def product_image(engine: PrivateEngine) -> str:
    """The reference of Lookout's own image, which the engine has; the first test that asks lets it be built."""
    return product.have(engine)


@pytest.fixture
def gate(engine: PrivateEngine, sqs: LocalSqs) -> Iterator[Gate]:
    """A way from the engine's containers to the queue server."""
    with Gate(engine.sandbox, sqs.endpoint) as gate:
        yield gate


@pytest.fixture
def make_lookout(engine: PrivateEngine, make_container: MakeContainer) -> MakeLookout:
    """Start a container that stands for a Lookout, and return its id; it is alive while that runs."""
    reference = "lookout-test-itself:1"
    make_image(engine, reference)
    return lambda suffix: str(engine.inspected(make_container(reference, suffix))["Id"])


@pytest.fixture
def tool_image(engine: PrivateEngine) -> str:
    """An image that no test deploys, for the containers beside those that are deployed."""
    reference = f"lookout-test-{secrets.token_hex(4)}/tool:1"
    make_image(engine, reference)
    return reference


@pytest.fixture
def inspect(engine: PrivateEngine) -> Inspect:
    """Inspect a container in the newest API that the engine knows."""
    return engine.inspected


@pytest.fixture
def line(engine: PrivateEngine) -> Iterator[FaultProxy]:
    """A faulty line to the engine."""
    with FaultProxy(engine.socket, engine.directory / f"{secrets.token_hex(4)}.sock") as line:
        yield line


@pytest.fixture
async def connection(
    request: pytest.FixtureRequest, engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    """The private engine, as Lookout calls it: through the faulty line where the test asks for one."""
    faulty = "line" in request.fixturenames
    way: PrivateEngine | FaultProxy = request.getfixturevalue("line") if faulty else engine
    monkeypatch.setenv("DOCKER_HOST", way.docker_host)
    async with Engine.connect() as connection:
        yield connection


@pytest.fixture
async def make_deployer(connection: Engine) -> AsyncIterator[MakeDeployer]:
    """A deployer on the private engine, with waits that are short enough for a test."""
    made: list[Deployer] = []

    def make(keychain: Keychain | None = None, **changes: Any) -> Deployer:
        made.append(new_deployer(connection, keychain or Keychain(), **changes))
        return made[-1]

    yield make
    for deployer in made:
        await deployer.close()


@pytest.fixture
def deploy(make_deployer: MakeDeployer) -> Deploy:
    """Deploy `image:tag` with a new deployer."""

    async def run(reference: str, **changes: Any) -> Report:
        return await make_deployer(**changes).deploy(request_for(reference))

    return run
