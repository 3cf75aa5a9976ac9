"""The machine under the engine runs out of something, or loses it, in the middle of a swap."""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from lookout.model import Outcome
from testbed.engine import DockerFailed, PrivateEngine
from testbed.faultproxy import FaultProxy
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import until
from tests.integration.swaps import assert_back, beside, impatient
from tests.integration.watching import Watch, page, state

pytestmark = pytest.mark.engine

PORT = 18131

# The disk


@pytest.fixture
def fill_disk(engine: PrivateEngine) -> Iterator[Callable[[float], None]]:
    """Leave no space where the engine has its data, for so many seconds."""
    data = engine.directory / "data"
    timers: list[threading.Timer] = []

    def resize(size: str) -> None:
        engine.sandbox.run(["mount", "-o", f"remount,size={size}", data])

    def fill(seconds: float) -> None:
        used = engine.sandbox.run(["df", "--block-size=1K", "--output=used", data]).split()[1]
        resize(f"{used}k")
        timers.append(threading.Timer(seconds, resize, ["50%"]))
        timers[-1].start()

    yield fill
    for timer in timers:
        timer.join()


async def test_a_disk_that_is_full_before_anything_is_stopped_costs_nothing(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    fill_disk: Callable[[float], None],
) -> None:
    name = make_container(app_image("1"), "api", "--restart=always")
    old, two, watch = inspect(name), app_image("2"), Watch(engine)
    line.meet(r"POST .*/containers/create", lambda: fill_disk(1))
    report = await make_deployer().deploy(request_for(two))
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert "no space left on device" in report.reason
    assert inspect(name)["State"] == old["State"]
    assert not [touch for touch in watch.touches() if touch[1] == name]
    assert not leftovers(engine)


async def test_a_disk_that_is_full_when_the_new_container_starts_brings_the_old_one_back_when_it_can(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    fill_disk: Callable[[float], None],
) -> None:
    """The engine can neither start nor rename anything then."""
    name = make_container(app_image("1"), "api", "--restart=always", f"--publish={PORT}:8080")
    old, two = inspect(name), app_image("2")
    line.meet(r"POST .*/start", lambda: fill_disk(3))
    report = await make_deployer().deploy(request_for(two))
    assert report.outcome in (Outcome.ROLLED_BACK, Outcome.FAILED)
    assert "no space left on device" in report.reason
    assert_back(old, inspect(name))
    assert page(engine, f"http://127.0.0.1:{PORT}/") == "1"
    assert not leftovers(engine)


# Memory


async def test_a_container_that_needs_more_memory_than_it_may_have_is_no_good_and_the_report_says_why(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api", "--memory=16m")
    old, hungry = inspect(name), app_image("2", changes=['CMD ["tail", "/dev/zero"]'])
    report = await make_deployer(monitor=2).deploy(request_for(hungry))
    assert report.outcome is Outcome.ROLLED_BACK
    assert "memory" in report.reason
    assert_back(old, inspect(name))
    assert not leftovers(engine)


# The image, a network, a port


async def test_an_image_that_is_removed_before_it_is_used_is_pulled_again_with_the_next_try(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    name = make_container(app_image("1"), "api")
    old, two, deployer = inspect(name), app_image("2"), make_deployer()
    line.meet(r"POST .*/containers/create", lambda: engine.docker("rmi", "--force", two))
    report = await deployer.deploy(request_for(two))
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert "No such image" in report.reason
    assert inspect(name)["State"] == old["State"]
    assert not leftovers(engine)
    assert (await deployer.deploy(request_for(two))).outcome is Outcome.DEPLOYED


async def test_a_network_that_is_removed_in_mid_swap_is_named_and_once_it_is_there_again_so_is_the_container(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither of the two can be started without it."""
    impatient(monkeypatch)
    network = f"lookout-test-{secrets.token_hex(4)}"
    engine.docker("network", "create", network)
    try:
        name = make_container(
            app_image("1"), "api", f"--network={network}", "--restart=always", f"--publish={PORT}:8080"
        )
        old, two, deployer = inspect(name), app_image("2"), make_deployer()
        line.meet(r"POST .*/start", lambda: engine.docker("network", "rm", network))

        report = await deployer.deploy(request_for(two))

        assert report.outcome is Outcome.ROLLBACK_FAILED
        assert "network" in report.reason
        assert "not found" in report.reason
        assert f"docker start {name}" in report.reason

        engine.docker("network", "create", network)
        await deployer.recover()
        await until(lambda: state(engine, name) == (old["Id"], True) and not leftovers(engine))
        assert_back(old, inspect(name))
        assert page(engine, f"http://127.0.0.1:{PORT}/") == "1"
        engine.docker("rm", "--force", name)
    finally:
        with suppress(DockerFailed):
            engine.docker("network", "rm", network)


async def test_a_port_that_a_stranger_takes_in_mid_swap_is_named_and_once_it_is_free_the_container_is_back(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch)
    name = make_container(app_image("1"), "api", f"--publish={PORT}:8080", "--restart=always")
    old, two, deployer, strangers = inspect(name), app_image("2"), make_deployer(), app_image("3")
    stolen: list[str] = []

    def steal() -> None:
        stolen.append(make_container(strangers, "stranger", f"--publish={PORT}:8080"))

    line.meet(r"POST .*/rename", steal)
    report = await deployer.deploy(request_for(two))

    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert str(PORT) in report.reason
    assert f"docker start {name}" in report.reason
    assert state(engine, name) == (old["Id"], False), "it has its name, for whoever starts it by hand"
    assert page(engine, f"http://127.0.0.1:{PORT}/") == "3"

    engine.docker("rm", "--force", *stolen)
    await deployer.recover()
    await until(lambda: state(engine, name) == (old["Id"], True) and not leftovers(engine))
    assert_back(old, inspect(name))
    assert page(engine, f"http://127.0.0.1:{PORT}/") == "1"


async def test_each_of_two_containers_that_cannot_come_back_is_named_with_the_command_that_helps(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The port of one is taken while it is down for its new one, that of the other on the way back."""
    impatient(monkeypatch)
    one, two, strangers = (app_image(tag) for tag in "123")
    ports = (PORT, PORT + 1)
    names = [make_container(one, str(port), f"--publish={port}:8080", "--restart=always") for port in ports]
    olds, deployer, stolen = [inspect(name) for name in names], make_deployer(), list[str]()

    def steal(port: int) -> None:
        stolen.append(make_container(strangers, f"stranger-{port}", f"--publish={port}:8080"))

    def steal_the_second() -> None:
        steal(ports[1])
        line.meet(rf"POST .*/rename\?name={names[0]}\.lookout-new", lambda: steal(ports[0]))

    line.meet(rf"POST .*/rename\?name={names[1]}\.lookout-old", steal_the_second)
    report = await deployer.deploy(request_for(two))

    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert report.reason.startswith(f"{names[1]}, {names[0]} could not be brought back: ")
    assert all(f":{port} " in report.reason for port in ports), report.reason
    assert report.reason.endswith(f"; by hand: docker start {names[1]}; docker start {names[0]}")
    engine.docker("rm", "--force", *stolen)
    await deployer.recover()
    await until(lambda: not leftovers(engine))
    for name, old in zip(names, olds, strict=True):
        assert_back(old, inspect(name))


async def test_a_dependent_that_cannot_come_back_with_what_it_depends_on_is_named_too(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient(monkeypatch)
    vpn = make_container(app_image("1"), "vpn", f"--publish={PORT}:8080", "--restart=always")
    other = beside(engine, app_image("1"), "1")[0]
    child = make_container(other, "child", f"--network=container:{vpn}", "--env=PORT=8090")
    bad, strangers, names = app_image("2", changes=['CMD ["false"]']), app_image("3"), (vpn, child)
    olds, deployer, stolen = [inspect(name) for name in names], make_deployer(), list[str]()

    def steal() -> None:
        stolen.append(make_container(strangers, "stranger", f"--publish={PORT}:8080"))

    line.meet(rf"POST .*/rename\?name={vpn}\.lookout-new", steal)
    report = await deployer.deploy(request_for(bad))

    assert report.outcome is Outcome.ROLLBACK_FAILED
    assert report.reason.startswith(f"{vpn}, {child} could not be brought back: ")
    assert report.reason.endswith(f"; by hand: docker start {vpn}; docker start {child}")
    engine.docker("rm", "--force", *stolen)
    await deployer.recover()
    await until(lambda: not leftovers(engine))
    for name, old in zip(names, olds, strict=True):
        assert_back(old, inspect(name))
