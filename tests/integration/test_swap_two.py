"""More than one Lookout on an engine: one that is gone and leaves its work to the next, and two that live."""

import asyncio
from dataclasses import dataclass

import pytest
from structlog.typing import EventDict

from lookout.model import Json, Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy, When
from testbed.images import make_image, push
from tests.integration.conftest import AppImage, Inspect, MakeContainer, MakeDeployer, MakeLookout
from tests.integration.deploys import leftovers, request_for
from tests.integration.swaps import assert_back, flag, killed, killed_at
from tests.integration.watching import Watch, exists, page

pytestmark = pytest.mark.engine

PORT = 18151
MONITOR = 2.0  # seconds; the next Lookout watches for as long


def is_one(engine: PrivateEngine, name: str, old: Json, new_image: str, inspect: Inspect) -> bool:
    """Whether one container is left, with its old policy: the new one, or the old one as it was."""
    now = inspect(name)
    assert now["State"]["Running"]
    assert now["HostConfig"]["RestartPolicy"] == old["HostConfig"]["RestartPolicy"]
    if now["Id"] == old["Id"]:
        assert_back(old, now)
        return False
    assert now["Config"]["Image"] == new_image
    assert not exists(engine, old["Id"])
    return True


# Killed in the middle


@dataclass(frozen=True)
class Moment:
    """The nth request of this pattern, before or after the engine did it; how many may be replaced then."""

    pattern: str
    nth: int
    when: When
    replaced: set[int]


MOMENTS = {
    "both stopped": Moment(r"POST .*/stop", 2, "after", {0, 1}),
    "the first start": Moment(r"POST .*/start", 1, "after", {1, 2}),
    "both watched": Moment(r"POST .*/start", 2, "after", {2}),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
async def test_two_deploys_that_are_killed_at_the_same_moment_are_brought_to_an_end_by_the_next_lookout(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    make_lookout: MakeLookout,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    moment: Moment,
) -> None:
    """What was watched already is finished if it is good, and what had not come so far is undone."""
    other = app_image("1").replace("/api:1", "/web")
    for tag in ("1", "2"):
        make_image(engine, f"{other}:{tag}")
        push(engine, f"{other}:{tag}")
    names = [
        make_container(image, suffix, "--restart=always", f"--publish={PORT + number}:8080")
        for number, (image, suffix) in enumerate(((app_image("1"), "api"), (f"{other}:1", "web")))
    ]
    olds, images = [inspect(name) for name in names], [app_image("2"), f"{other}:2"]
    first = make_lookout("first")
    deployer = make_deployer(own_id=first, monitor=MONITOR)
    await killed_at(line, moment.pattern, deployer, *images, nth=moment.nth, when=moment.when)
    engine.docker("rm", "--force", first)

    await make_deployer(own_id=make_lookout("second")).recover()

    assert not leftovers(engine)
    are_new = [is_one(engine, *which, inspect) for which in zip(names, olds, images, strict=True)]
    assert sum(are_new) in moment.replaced
    for number, is_new in enumerate(are_new):
        assert page(engine, f"http://127.0.0.1:{PORT + number}/") == ("2" if is_new else "1")
    watch = Watch(engine)
    await make_deployer().recover()
    assert not watch.touches()


# Both alive


@pytest.mark.parametrize("held", ["at the stop", "while it watches"])
async def test_what_a_lookout_that_lives_has_in_hand_no_other_one_touches_until_it_is_gone(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    make_lookout: MakeLookout,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
    held: str,
) -> None:
    name = make_container(app_image("1"), "api", "--restart=always", f"--publish={PORT}:8080")
    old, two, three = inspect(name), app_image("2"), app_image("3")
    a, b = make_lookout("a"), make_lookout("b")
    is_held, holds = flag()

    def hold(pattern: str, nth: int = 1) -> None:
        line.hang(pattern, nth=nth, action=holds)

    if held == "at the stop":
        hold(r"POST .*/stop")
    else:
        line.meet(r"POST .*/start", lambda: hold(r"GET .*/containers/[^/]*/json", 3))
    first = asyncio.create_task(make_deployer(own_id=a).deploy(request_for(two)))
    await asyncio.wait_for(is_held.wait(), 20)
    second, watch = make_deployer(own_id=b), Watch(engine)

    logs.clear()
    await second.recover()
    assert not watch.touches()
    assert any(a[:12] in str(event) for event in logs), "whose it is"
    report = await second.deploy(request_for(three))
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert "another Lookout" in report.reason
    assert a[:12] in report.reason
    assert not watch.touches()

    await killed(line, first)
    await second.recover()
    assert not watch.touches(), "its container still runs"
    engine.docker("stop", "--time=0", a)
    await second.recover()
    assert is_one(engine, name, old, two, inspect) == (held == "while it watches")
    assert not leftovers(engine)
    assert (await second.deploy(request_for(three))).outcome is Outcome.DEPLOYED
    assert page(engine, f"http://127.0.0.1:{PORT}/") == "3"


async def test_two_lookouts_that_begin_at_the_same_moment_make_one_new_container_in_the_end(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    make_lookout: MakeLookout,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Whoever comes second sees the other's container and leaves it alone."""
    name = make_container(app_image("1"), "api", "--restart=always")
    two, watch = app_image("2"), Watch(engine)
    deployers = [make_deployer(own_id=make_lookout(suffix)) for suffix in ("a", "b")]
    reports = await asyncio.gather(*(deployer.deploy(request_for(two)) for deployer in deployers))
    outcomes = {report.outcome for report in reports}
    assert Outcome.DEPLOYED in outcomes
    assert outcomes <= {Outcome.DEPLOYED, Outcome.FAILED, Outcome.UNCHANGED}
    assert all(report.transient for report in reports if report.outcome is Outcome.FAILED)
    assert inspect(name)["State"]["Running"]
    assert inspect(name)["Config"]["Image"] == two
    assert not leftovers(engine)
    stops = [found for action, found in watch.touches() if action == "stop" and found == name]
    assert stops == [name]
