"""Whether a new container is there to stay: what is no good never stays, and soon is gone again."""

import asyncio
from dataclasses import dataclass

import pytest

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer
from tests.integration.deploys import leftovers
from tests.integration.queues import until
from tests.integration.swaps import CRASHING, assert_back, moments, watched
from tests.integration.watching import Watch, page, state

pytestmark = pytest.mark.engine

WAYS_BACK = 15.0  # seconds: stop, rename and start on a busy machine, all in all
HEALTHY_PAGE = "CMD wget -q -O /dev/null http://127.0.0.1:8080/"


@dataclass(frozen=True)
class Bad:
    """An image that is no good; which words say so, and in how many seconds it must be known."""

    changes: tuple[str, ...]
    says: str
    known_within: float
    not_before: float = 0
    restart: str = "always"
    monitor: float = 0.5
    log: str = ""


BAD = {
    "unhealthy after nine seconds": Bad(
        ("HEALTHCHECK --interval=3s --timeout=1s --retries=3 CMD false",),
        says="unhealthy",
        not_before=3 * 3,
        known_within=3 * (3 + 1),
    ),
    "healthy at first": Bad(
        (
            'CMD ["sh", "-c", "(sleep 1.5; touch /sick) & exec /app"]',
            "HEALTHCHECK --interval=200ms --timeout=1s --retries=2 CMD test ! -e /sick || (echo is sick; false)",
        ),
        says="unhealthy",
        log="health check: is sick",
        monitor=5,
        not_before=1.5,
        known_within=1.5 + 2 * (0.2 + 1),
    ),
    "its check never answers": Bad(
        ("HEALTHCHECK --interval=200ms --timeout=500ms --retries=2 CMD sleep 60",),
        says="unhealthy",
        not_before=2 * 0.5,
        known_within=2 * (0.2 + 0.5),
    ),
    "never healthy, which its start period hides for a while": Bad(
        ("HEALTHCHECK --start-period=3s --interval=300ms --timeout=1s --retries=1 CMD false",),
        says="unhealthy",
        not_before=3,
        known_within=3 + 0.3 + 1,
    ),
    "exits with 0 at once, started again for ever": Bad(('CMD ["true"]',), says="exited", known_within=0),
    "exits with 0 at once, and that is the end of it": Bad(
        ('CMD ["true"]',), says="exited with code 0", known_within=0, restart="on-failure"
    ),
    "a slow crash loop": Bad(
        (CRASHING.format(1, 3),),
        says="exited",
        not_before=1,
        known_within=1,
        monitor=2.5,
        restart="on-failure",
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_image_is_known_in_the_time_that_its_own_numbers_allow_and_the_old_one_serves_again(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    bad: Bad,
) -> None:
    name = make_container(app_image("1"), "api", "--publish=18101:8080", f"--restart={bad.restart}")
    old, image, watch = inspect(name), app_image("bad", changes=bad.changes), Watch(engine)

    report = await deploy(image, monitor=bad.monitor)

    assert report.outcome is Outcome.ROLLED_BACK
    assert name in report.reason
    assert bad.says in report.reason
    assert "sick" not in report.reason
    assert bad.log in report.each[0].log_tail
    assert_back(old, inspect(name))
    assert page(engine, "http://127.0.0.1:18101/") == "1"
    assert not leftovers(engine)
    (new,) = {e["Actor"]["ID"] for e in watch.events("container") if e["Action"] == "create"}
    started, (back,) = moments(watch, new, "start")[0], moments(watch, old["Id"], "start")
    assert bad.not_before <= back - started < bad.known_within + WAYS_BACK
    assert moments(watch, new, "destroy")[0] > back, "its log is of no use if the service is down meanwhile"


async def test_an_image_that_is_healthy_only_late_in_its_start_period_is_waited_for(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Longer than the deploy time says, and than the retries would allow."""
    check = "HEALTHCHECK --start-period=60s --interval=200ms --timeout=1s --retries=1 CMD test -e /warm"
    slow = 'CMD ["sh", "-c", "(sleep 2; touch /warm) & exec /app"]'
    name = make_container(app_image("1"), "api", "--publish=18101:8080")
    old, image = inspect(name), app_image("2", changes=[slow, check])
    watch = Watch(engine)
    report = await deploy(image, deploy_time=1)
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    assert inspect(name)["State"]["Health"]["Status"] == "healthy"
    (started,) = moments(watch, inspect(name)["Id"], "start")
    (removed,) = moments(watch, old["Id"], "destroy")
    assert removed - started > 2
    assert page(engine, "http://127.0.0.1:18101/") == "2"


async def test_a_check_that_fails_now_and_then_but_not_often_enough_to_be_unhealthy_does_no_harm(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, inspect: Inspect
) -> None:
    check = (
        "HEALTHCHECK --interval=100ms --timeout=1s --retries=3 "
        "CMD echo >> /tries; test $(($(wc -l < /tries) % 3)) -eq 0"
    )
    name = make_container(app_image("1"), "api")
    report = await deploy(app_image("2", changes=[check]), monitor=1)
    assert report.outcome is Outcome.DEPLOYED
    assert inspect(name)["State"]["Health"]["Status"] == "healthy"


# Nobody is fooled


async def test_a_restart_by_the_user_gives_no_container_less_time_to_prove_itself(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """It would crash before two seconds are over, and runs for longer in all only because of the user."""
    name = make_container(app_image("1"), "api", "--publish=18101:8080", "--restart=always")
    old, image = inspect(name), app_image("2", changes=[CRASHING.format(1.4, 3)])
    async with watched(engine, name, deploy(image, monitor=2)) as middle:
        await asyncio.sleep(0.9)
        engine.docker("restart", "--time=0", middle.new)
    report = middle.task.result()
    assert report.outcome is Outcome.ROLLED_BACK
    assert_back(old, inspect(name))
    assert page(engine, "http://127.0.0.1:18101/") == "1"
    assert not leftovers(engine)


async def test_a_good_container_that_the_user_restarts_has_run_long_enough_or_is_no_good(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api")
    old, image, watch = inspect(name), app_image("2"), Watch(engine)
    async with watched(engine, name, deploy(image, monitor=1.5)) as middle:
        await asyncio.sleep(0.7)
        engine.docker("restart", "--time=0", middle.new)
    report = middle.task.result()
    assert not leftovers(engine)
    if report.outcome is Outcome.ROLLED_BACK:
        assert_back(old, inspect(name))
        return
    assert report.outcome is Outcome.DEPLOYED
    (removed,) = moments(watch, middle.old, "destroy")
    assert removed - moments(watch, middle.new, "start")[-1] >= 1.5


async def test_a_restart_of_the_engine_gives_no_container_less_time_to_prove_itself(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """The engine starts it again, and does not count that."""
    name = make_container(app_image("1"), "api", "--publish=18101:8080", "--restart=always")
    old, image = inspect(name), app_image("2", changes=[CRASHING.format(1.7, 3)])
    async with watched(engine, name, deploy(image, monitor=2)) as middle:
        await asyncio.sleep(0.3)
        engine.kill()
        engine.start()
    report = middle.task.result()
    assert report.outcome in (Outcome.ROLLED_BACK, Outcome.FAILED)
    await until(lambda: state(engine, name) == (old["Id"], True))
    assert_back(old, inspect(name))
    assert page(engine, "http://127.0.0.1:18101/") == "1"
    assert not leftovers(engine)
