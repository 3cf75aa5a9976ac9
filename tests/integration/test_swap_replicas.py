"""Several containers of one image: so many at a time, and all of them or none."""

import time

import pytest
from structlog.typing import EventDict

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer
from tests.integration.deploys import leftovers
from tests.integration.swaps import SLOW_TO_STOP, assert_back, most_down_at_once, order
from tests.integration.watching import Watch, page

pytestmark = pytest.mark.engine

MONITOR = 0.6  # seconds
# So slow to stop that those which may be down at the same time surely are.
ONE = [SLOW_TO_STOP.format(0.4)]
# It ends where it finds this in its environment, a while after it was started.
PICKY = ['CMD ["sh", "-c", "test -z \\"$FAIL\\" || { sleep 0.3; echo no good; exit 4; }; exec /app"]']
FIRST_PORT = 18110


def replicas(make_container: MakeContainer, image: str, count: int, *, bad: int | None = None) -> list[str]:
    """So many containers, published on ports of their own; the new image will not run in the `bad` one."""
    return [
        make_container(
            image,
            "abcdef"[number],
            *(f"--publish={FIRST_PORT + number}:8080", "--restart=always"),
            *(("--env=FAIL=1",) if number == bad else ()),
        )
        for number in range(count)
    ]


def pages(engine: PrivateEngine, names: list[str]) -> list[str]:
    return [page(engine, f"http://127.0.0.1:{FIRST_PORT + number}/") for number in range(len(names))]


@pytest.mark.parametrize(("parallelism", "at_once"), [(2, 2), (0, 3)])
async def test_so_many_replicas_are_down_at_a_time_and_the_old_ones_go_when_all_new_ones_are_ready(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    parallelism: int,
    at_once: int,
) -> None:
    names = replicas(make_container, app_image("1", changes=ONE), 3)
    olds, two, watch = [inspect(name)["Id"] for name in names], app_image("2"), Watch(engine)

    report = await deploy(two, parallelism=parallelism, monitor=MONITOR)

    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, tuple(names))
    assert not {inspect(name)["Id"] for name in names} & set(olds)
    assert pages(engine, names) == ["2"] * 3
    assert not leftovers(engine)
    assert most_down_at_once(watch, names) == at_once
    done = order(watch, "start", "destroy")
    assert [action for action, _, _ in done] == ["start"] * 3 + ["destroy"] * 3
    assert done[3][2] - done[2][2] >= MONITOR, "the first old one goes when the last new one is ready"


async def test_with_one_at_a_time_the_next_is_stopped_only_when_the_last_is_ready(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
) -> None:
    names = replicas(make_container, app_image("1", changes=ONE), 2)
    two, watch = app_image("2"), Watch(engine)
    assert (await deploy(two, monitor=MONITOR)).outcome is Outcome.DEPLOYED
    done = order(watch, "kill", "start")
    assert [(action, name) for action, name, _ in done] == [
        (action, name) for name in names for action in ("kill", "start")
    ]
    assert done[2][2] - done[1][2] >= MONITOR


@pytest.mark.parametrize(("parallelism", "at_most"), [(1, 1), (0, 3)])
async def test_the_second_replica_that_fails_brings_all_back_as_they_were(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
    parallelism: int,
    at_most: int,
) -> None:
    names = replicas(make_container, app_image("1", changes=ONE), 3, bad=1)
    olds, picky, watch = [inspect(name) for name in names], app_image("2", changes=PICKY), Watch(engine)

    report = await deploy(picky, parallelism=parallelism, monitor=MONITOR)

    assert report.outcome is Outcome.ROLLED_BACK
    assert names[1] in report.reason
    assert ["no good" in one.log_tail for one in report.each] == [False, True, False]
    for name, old in zip(names, olds, strict=True):
        assert_back(old, inspect(name))
    assert pages(engine, names) == ["1"] * 3
    assert not leftovers(engine)
    assert most_down_at_once(watch, names) <= at_most
    if parallelism == 1:
        assert inspect(names[2])["State"] == olds[2]["State"], "it was not its turn yet"
    assert destroyed(watch) == created(watch), "no old one was removed"


@pytest.mark.parametrize(("setting", "at_most"), [(0.5, float("inf")), (30, 30)], ids=["longer", "shorter"])
async def test_a_container_may_say_for_itself_how_long_it_is_watched(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    setting: float,
    at_most: float,
) -> None:
    """Longer or shorter than the setting has it."""
    one = app_image("1")
    labels = {"a": "2", "b": "1"}
    names = [make_container(one, s, f"--label=lookout.monitor-seconds={v}") for s, v in labels.items()]
    two, watch = app_image("2"), Watch(engine)
    assert (await deploy(two, monitor=setting)).outcome is Outcome.DEPLOYED
    done = order(watch, "start", "kill", "destroy")
    assert [action for action, _, _ in done] == ["kill", "start"] * 2 + ["destroy"] * 2
    first, second = (done[after][2] - done[after - 1][2] for after in (2, 4))
    assert 2 <= first < at_most
    assert 1 <= second < at_most
    labels_now = [inspect(name)["Config"]["Labels"]["lookout.monitor-seconds"] for name in names]
    assert labels_now == [*labels.values()]


def created(watch: Watch) -> set[str]:
    return ids(watch, "create")


def destroyed(watch: Watch) -> set[str]:
    return ids(watch, "destroy")


def ids(watch: Watch, action: str) -> set[str]:
    return {event["Actor"]["ID"] for event in watch.events("container") if event["Action"] == action}


async def test_a_look_that_is_refused_after_all_were_ready_brings_none_back(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, line: FaultProxy
) -> None:
    """They are looked at once more, since the first may not have lived until the last was ready."""
    names = replicas(make_container, app_image("1"), 2)
    two = app_image("2")

    def refuse(request: str) -> bool:
        """The first look of the watch that begins when both have been watched."""
        listened = sum("/events" in request for request in line.requests)
        return listened > len(names) and request.startswith("GET") and request.endswith("/json")

    line.answer(refuse, 500)
    report = await deploy(two, monitor=MONITOR)
    assert line.is_spent
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, tuple(names))


@pytest.mark.parametrize("removed_by_stop", [False, True])
async def test_what_is_told_of_a_replica_that_was_good_is_its_own(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    *,
    removed_by_stop: bool,
) -> None:
    """Between its two swaps it served on the new image, and its log is nobody else's business."""
    stops = "trap 'sleep 1; exit' TERM; while :; do sleep 0.1; done"
    says = f'CMD ["sh", "-c", "echo says this; test -z \\"$FAIL\\" || {{ sleep 2; exit 4; }}; {stops}"]'
    image, options = app_image("1"), ["--rm"] if removed_by_stop else []
    good, bad = (
        make_container(image, suffix, *options, *more)
        for suffix, more in (("a", []), ("b", ["--env=FAIL=1"]))
    )
    picky = app_image("2", changes=[says])
    began = time.monotonic()
    report = await deploy(picky, monitor=3)
    took = time.monotonic() - began
    assert report.outcome is Outcome.ROLLED_BACK
    told = {one.name: one for one in report.each}
    assert told[good].log_tail == ""
    assert "says this" in told[bad].log_tail
    assert 1 <= (told[good].downtime or 0) <= took - 3 - 2, "in which it served"
    assert (told[bad].downtime or 0) >= 2
