"""Containers that were run with --rm: a stop removes them, so the way back is made before."""

import asyncio
import json
import re

import pytest

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import until
from tests.integration.swaps import killed_at
from tests.integration.test_copy_dependents import has_eth0
from tests.integration.test_swap_replicas import PICKY
from tests.integration.watching import Watch, page, state, volumes

pytestmark = [pytest.mark.engine]

WITH_DATA = ("VOLUME /data",)


def write(engine: PrivateEngine, container: str) -> None:
    engine.inside(container, "sh", "-c", "echo kept > /data/file; echo own > /own")


async def test_case_45_a_good_image_takes_over_with_the_data_and_the_option(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1", changes=[*WITH_DATA]), "api", "--rm", "--publish=18101:8080")
    write(engine, name)
    old, before = inspect(name), volumes(engine)
    report = await deploy(app_image("2", changes=[*WITH_DATA]))
    assert (report.outcome, report.containers) == (Outcome.DEPLOYED, (name,))
    new = inspect(name)
    assert (new["State"]["Running"], new["HostConfig"]["AutoRemove"]) == (True, True)
    assert page(engine, "http://127.0.0.1:18101/") == "2"
    assert engine.inside(name, "cat", "/data/file") == "kept"
    assert new["Mounts"][0]["Name"] == old["Mounts"][0]["Name"]
    assert volumes(engine) == before
    assert not leftovers(engine)


#: What its command writes, and what the report says of it, if it was seen before it was gone.
BAD = {
    '["sh", "-c", "echo bad news; exit 3"]': ("bad news", "it is gone|exited with code 3"),
    '["/nonexistent"]': ("", "no such file or directory"),
    '["sh", "-c", "echo slow news >&2; sleep 1"]': ("slow news", "it is gone|exited with code 0"),
}


@pytest.mark.newest
@pytest.mark.parametrize("tty", [(), ("--tty",)], ids=["no tty", "tty"])
@pytest.mark.parametrize("command", BAD)
async def test_case_45_a_bad_image_leaves_a_container_like_the_old_one(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    command: str,
    tty: tuple[str, ...],
) -> None:
    options = (*tty, "--rm", "--publish=18102:8080", "--env=MINE=1", "--hostname=box")
    name = make_container(app_image("1", changes=[*WITH_DATA]), "api", *options)
    write(engine, name)
    old, before = inspect(name), volumes(engine)
    report = await deploy(app_image("2", changes=[*WITH_DATA, f"CMD {command}"]), monitor=1.5)
    assert report.outcome is Outcome.ROLLED_BACK
    says, reason = BAD[command]
    assert says in report.each[0].log_tail, "although its log went with it"
    assert re.search(reason, report.reason)
    back = inspect(name)
    assert (back["State"]["Running"], back["Image"]) == (True, old["Image"])
    assert back["HostConfig"] == old["HostConfig"] | {"Binds": back["HostConfig"]["Binds"]}
    assert back["Config"]["Env"] == old["Config"]["Env"]
    assert page(engine, "http://127.0.0.1:18102/") == "1"
    assert engine.inside(name, "cat", "/data/file") == "kept"
    assert volumes(engine) == before
    assert not leftovers(engine)

    again = await deploy(app_image("3", changes=[*WITH_DATA]))
    assert again.outcome is Outcome.DEPLOYED, "what came back is found by the same name"
    assert engine.inside(name, "cat", "/data/file") == "kept"
    assert not leftovers(engine)


async def test_a_cancelled_swap_leaves_a_container_like_the_old_one(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    name = make_container(app_image("1"), "api", "--rm")
    old, two = inspect(name), app_image("2")
    deploying = asyncio.ensure_future(make_deployer(monitor=60).deploy(request_for(two)))
    await until(lambda: state(engine, name)[1] and state(engine, name)[0] != old["Id"])
    deploying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deploying
    assert (inspect(name)["State"]["Running"], inspect(name)["Image"]) == (True, old["Image"])
    assert not leftovers(engine)


async def test_two_of_which_one_had_come_back_when_lookout_was_killed_are_both_back_after_the_recovery(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    """The new one of the first is up and good, and does not stay beside the old image of the second."""
    one, picky = app_image("1"), app_image("2", changes=PICKY)
    names = [make_container(one, "a", "--rm"), make_container(one, "b", "--rm", "--env=FAIL=1")]
    olds = [inspect(name) for name in names]
    await killed_at(line, r"POST .*/start", make_deployer(), picky, nth=3, when="after")
    first, second = (inspect(name) for name in names)
    assert (first["Config"]["Image"], first["State"]["Running"]) == (picky, True)
    assert (second["Image"], second["State"]["Running"]) == (olds[1]["Image"], True)

    await make_deployer().recover()

    for name, old in zip(names, olds, strict=True):
        assert (inspect(name)["State"]["Running"], inspect(name)["Image"]) == (True, old["Image"])
    assert inspect(names[1])["State"] == second["State"]
    assert not leftovers(engine)


async def test_one_that_others_depend_on_is_refused(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    """It would come back with another id, which those do not know."""
    name = make_container(app_image("1"), "api", "--rm")
    child = make_container(app_image("1"), "child", f"--network=container:{name}", "--env=PORT=8081")
    two, watch = app_image("2"), Watch(engine)
    report = await deploy(two)
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert "--rm" in report.reason
    assert child in report.reason
    assert not watch.touches()


@pytest.mark.parametrize("changes", [[], ['CMD ["false"]']], ids=["good", "bad"])
async def test_a_dependent_that_was_run_with_it_follows_and_comes_back(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    changes: list[str],
) -> None:
    one = app_image("1")
    vpn = make_container(one, "vpn")
    # Made from the image's id, so that it is not of the image that is deployed.
    child = make_container(
        json.loads(engine.docker("image", "inspect", one))[0]["Id"],
        "child",
        "--rm",
        f"--network=container:{vpn}",
        "--env=PORT=8081",
        "--label=lookout.enable=true",
    )
    report = await deploy(app_image("2", changes=changes))
    assert report.outcome is (Outcome.ROLLED_BACK if changes else Outcome.DEPLOYED)
    assert inspect(child)["State"]["Running"]
    assert inspect(child)["HostConfig"]["NetworkMode"] == f"container:{inspect(vpn)['Id']}"
    assert has_eth0(engine, child)
    assert not leftovers(engine)
