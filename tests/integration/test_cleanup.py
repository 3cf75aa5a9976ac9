"""Which images go after deploys, and which stay, on both kinds of image store."""

import asyncio
import secrets
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.model import DeployRequest, Json, Origin, Outcome
from lookout.names import REPLACED_IMAGES
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from testbed.images import make_image, push
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer, MakeDeployer
from tests.integration.deploys import leftovers, request_for
from tests.integration.queues import said, until

pytestmark = pytest.mark.engine


def tags(engine: PrivateEngine, repository: str) -> list[str]:
    """The tags of a repository that the engine has, the latest last."""
    return sorted(engine.docker("images", "--format={{.Tag}}", repository).split())


def has(engine: PrivateEngine, image_id: str) -> bool:
    return image_id in engine.docker("images", "--all", "--quiet", "--no-trunc").split()


@pytest.mark.containerd
async def test_the_last_images_stay_for_a_way_back_and_those_before_go_also_after_a_restart(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    images = [app_image(str(tag)) for tag in range(1, 6)]
    repository = images[0].removesuffix(":1")
    make_container(images[0], "api")
    for image, left in zip(images[1:], ("12345", "12345", "2345", "345"), strict=True):
        report = await deploy(image, keep=2)  # each by a Lookout of its own
        assert report.outcome is Outcome.DEPLOYED
        assert "".join(tags(engine, repository)) == left
    removed = [event["image"] for event in said(logs, "old image removed")]
    assert removed == images[:2]
    assert not [event for event in logs if event["log_level"] in ("warning", "error")]


@pytest.mark.containerd
async def test_an_image_that_a_moved_tag_has_left_without_a_name_goes_too(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    image = app_image("latest", files={"/www/index.html": b"1"})
    name, seen = make_container(image, "api"), []
    for text in (b"2", b"3"):
        seen.append(inspect(name)["Image"])
        app_image("latest", files={"/www/index.html": text})
        assert (await deploy(image, keep=1)).outcome is Outcome.DEPLOYED
    assert [has(engine, one) for one in seen] == [False, True]
    assert engine.docker("exec", name, "cat", "/www/index.html") == "3"


@pytest.mark.containerd
async def test_an_image_that_is_used_or_has_other_names_stays(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    """Used by a container that does not run; named by another tag; named in another repository."""
    one, two, three, four, five = (app_image(str(tag)) for tag in range(1, 6))
    repository = one.removesuffix(":1")
    make_container(one, "api")
    engine.docker("stop", "-t", "0", make_container(one, "stopped"))
    backup = f"lookout-test-{secrets.token_hex(4)}:1"
    engine.docker("tag", two, f"{repository}:stable")
    engine.docker("tag", three, backup)
    for image in (two, three, four, five):
        assert (await deploy(image, keep=0)).outcome is Outcome.DEPLOYED
    assert tags(engine, repository) == ["1", "2", "3", "5", "stable"]
    assert not [event for event in logs if event["log_level"] in ("warning", "error")]
    engine.docker("rmi", backup)


async def test_an_image_that_was_in_use_goes_once_it_no_longer_is(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    one, two = app_image("1"), app_image("2")
    make_container(one, "api")
    other = make_container(one, "other", "--label=lookout.enable=false")
    await deploy(two, keep=0)
    assert tags(engine, one.removesuffix(":1")) == ["1", "2"]
    engine.docker("rm", "-f", "-v", other)
    assert (await deploy(two, keep=0)).outcome is Outcome.UNCHANGED
    assert tags(engine, one.removesuffix(":1")) == ["2"]


async def test_an_image_that_has_served_under_two_tags_goes_with_both(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    one, three = app_image("1"), app_image("3")
    repository = one.removesuffix(":1")
    engine.tag(one, f"{repository}:2")
    push(engine, f"{repository}:2")
    make_container(one, "api")
    for tag in ("2", "3"):
        assert (await deploy(f"{repository}:{tag}", keep=0)).outcome is Outcome.DEPLOYED
    assert three.endswith(":3")
    assert tags(engine, repository) == ["3"]


async def test_images_that_others_have_brought_are_not_lookouts(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    """Another tag of the same repository that never ran here, and images of other repositories."""
    one, two = app_image("1"), app_image("2")
    app_image("unused")
    other = f"lookout-test-{secrets.token_hex(4)}/other:1"
    make_image(engine, other)
    make_container(one, "api")
    await deploy(two, keep=0)
    assert tags(engine, one.removesuffix(":1")) == ["2", "unused"]
    assert tags(engine, other.removesuffix(":1")) == ["1"]


async def test_one_history_of_several_containers(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one, two, three = (app_image(str(tag)) for tag in range(1, 4))
    names = [make_container(one, "a"), make_container(two, "b")]
    assert (await deploy(three, keep=0)).outcome is Outcome.DEPLOYED
    assert tags(engine, one.removesuffix(":1")) == ["3"]
    labels = {inspect(name)["Config"]["Labels"][REPLACED_IMAGES] for name in names}
    assert len(labels) == 1


async def test_a_removal_that_fails_is_a_warning_and_the_next_deploy_tries_again(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
) -> None:
    one, two = app_image("1"), app_image("2")
    make_container(one, "api")
    line.answer(r"DELETE .*/images/", 500)
    report = await deploy(two, keep=0)
    assert report.outcome is Outcome.DEPLOYED
    (warning,) = said(logs, "an old image could not be removed")
    assert (warning["image"], warning["log_level"]) == (one, "warning")
    await deploy(two, keep=0)
    assert tags(engine, one.removesuffix(":1")) == ["2"]


async def test_an_engine_that_does_not_tell_its_images_costs_no_deploy(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
) -> None:
    """As behind a proxy that does not let everything through."""
    images = [app_image(str(tag)) for tag in range(1, 5)]
    make_container(images[0], "api")
    for nth, image in enumerate(images[1:], 1):
        line.answer(r"GET .*/images/json", 403, nth=nth)
        report = await deploy(image, keep=0)
        assert report.outcome is Outcome.DEPLOYED, report.reason
        assert line.is_spent
    assert [event["event"].partition(";")[0] for event in logs if event["log_level"] == "warning"] == [
        *["the engine does not tell its images"] * 2,
        "images could not be tidied up",
    ]
    await deploy(images[-1], keep=0)
    assert tags(engine, images[0].removesuffix(":1")) == ["4"]


async def test_a_list_of_images_that_cannot_be_had_for_a_moment_is_asked_for_again(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    engine: PrivateEngine,
    line: FaultProxy,
    logs: list[EventDict],
) -> None:
    """So answers the containerd image store while images are removed."""
    images = [app_image(str(tag)) for tag in range(1, 5)]
    make_container(images[0], "api")
    for nth, image in enumerate(images[1:], 1):
        line.answer(r"GET .*/images/json", 404, nth=nth)
        assert (await deploy(image, keep=0)).outcome is Outcome.DEPLOYED
        assert line.is_spent
    assert tags(engine, images[0].removesuffix(":1")) == ["4"]
    assert not [event for event in logs if event["log_level"] in ("warning", "error")]


async def test_without_a_cleaner_nothing_is_noted_and_nothing_goes(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    one, two = app_image("1"), app_image("2")
    name = make_container(one, "api")
    await deploy(two)
    assert tags(engine, one.removesuffix(":1")) == ["1", "2"]
    assert REPLACED_IMAGES not in inspect(name)["Config"]["Labels"]


# What was pulled in vain

BAD: dict[str, Any] = {"changes": ['CMD ["false"]']}


@pytest.mark.containerd
async def test_an_image_that_is_no_good_goes_and_the_tag_means_again_what_it_did(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    image = app_image("latest")
    name = make_container(image, "api")
    good = inspect(name)["Image"]
    bad = engine.docker("image", "inspect", "--format={{.Id}}", app_image("latest", **BAD))
    engine.docker("tag", good, image)  # the bad one is in the registry only
    engine.docker("rmi", bad)
    report = await deploy(image, keep=2)
    assert report.outcome is Outcome.ROLLED_BACK
    assert engine.docker("image", "inspect", "--format={{.Id}}", image) == good
    assert not has(engine, bad)
    assert inspect(name)["State"]["Running"]


async def test_a_bad_image_that_was_there_before_stays(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    image = app_image("1")
    make_container(image, "api")
    two = app_image("2", **BAD)
    assert (await deploy(two, keep=2)).outcome is Outcome.ROLLED_BACK
    assert tags(engine, image.removesuffix(":1")) == ["1", "2"]


async def test_the_image_of_a_deploy_that_is_refused_goes_too(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    image = app_image("1")
    make_container(image, "api", "--label=lookout.pin=nonsense")
    two = app_image("2")
    engine.docker("rmi", two)
    report = await deploy(two, keep=2)
    assert (report.outcome, report.transient) == (Outcome.FAILED, False)
    assert tags(engine, image.removesuffix(":1")) == ["1"]


@pytest.mark.containerd
async def test_what_was_deployed_by_its_digest_goes_like_any_other(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    one = app_image("1")
    digest = engine.docker("image", "inspect", "--format={{index .RepoDigests 0}}", one)
    engine.docker("rmi", one)
    engine.docker("pull", digest)
    make_container(digest, "api")
    image_id = engine.docker("image", "inspect", "--format={{.Id}}", digest)
    two = app_image("2")
    push(engine, two)
    assert (await deploy(two, keep=0)).outcome is Outcome.DEPLOYED
    assert not has(engine, image_id)


async def test_what_somebody_else_has_done_to_the_tag_meanwhile_is_left_alone(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    image = app_image("latest")
    good = inspect(make_container(image, "api"))["Image"]
    app_image("latest", changes=['CMD ["sh", "-c", "sleep 2; exit 1"]'])
    engine.tag(good, image)
    deployer = make_deployer(keep=2, monitor=4)
    deploying = asyncio.create_task(deployer.deploy(request_for(image)))
    await until(lambda: leftovers(engine))
    own = await asyncio.to_thread(make_image, engine, image, files={"/own": b"work"})
    assert (await deploying).outcome is Outcome.ROLLED_BACK
    assert engine.docker("image", "inspect", "--format={{.Id}}", image) == own


async def test_the_image_for_containers_that_are_gone_meanwhile_goes_too(
    app_image: AppImage, make_container: MakeContainer, make_deployer: MakeDeployer, engine: PrivateEngine
) -> None:
    one, two = app_image("1"), app_image("2")
    engine.docker("rmi", two)
    name, deployer = make_container(one, "api"), make_deployer(keep=2)
    pull = deployer._puller.pull

    async def pull_while_the_user_removes_all(request: DeployRequest, **how: Any) -> Json:
        engine.remove_all(name=name)
        return await pull(request, **how)

    deployer._puller.pull = pull_while_the_user_removes_all  # type: ignore[method-assign]
    assert (await deployer.deploy(request_for(two))).outcome is Outcome.NOT_HERE
    assert tags(engine, one.removesuffix(":1")) == ["1"]


async def test_a_retry_remembers_what_there_was_before_the_first_try(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    image = app_image("latest")
    good = inspect(make_container(image, "api"))["Image"]
    bad = engine.docker("image", "inspect", "--format={{.Id}}", app_image("latest", **BAD))
    engine.tag(good, image)
    engine.docker("rmi", bad)
    deployer = make_deployer(keep=2)
    line.answer(r"POST .*/containers/create", 500)
    report = await deployer.deploy(request_for(image))
    assert (report.outcome, report.transient) == (Outcome.FAILED, True)
    assert has(engine, bad)
    assert (await deployer.deploy(request_for(image))).outcome is Outcome.ROLLED_BACK
    assert not has(engine, bad)
    assert engine.docker("image", "inspect", "--format={{.Id}}", image) == good


async def test_what_there_was_before_another_message_is_not_what_there_was_before_this_one(
    app_image: AppImage,
    make_container: MakeContainer,
    make_deployer: MakeDeployer,
    inspect: Inspect,
    engine: PrivateEngine,
    line: FaultProxy,
) -> None:
    image = app_image("latest")
    good = inspect(make_container(image, "api"))["Image"]
    theirs = engine.docker("image", "inspect", "--format={{.Id}}", app_image("latest", files={"/a": b"1"}))
    engine.tag(good, image)
    deployer = make_deployer(keep=2)
    line.answer(r"POST .*/containers/create", 500)
    report = await deployer.deploy(request_for(image, origin=Origin("m-1", 1000)))
    assert report.transient
    app_image("latest", **BAD)
    engine.tag(theirs, image)
    report = await deployer.deploy(request_for(image, origin=Origin("m-2", 2000)))
    assert report.outcome is Outcome.ROLLED_BACK
    assert engine.docker("image", "inspect", "--format={{.Id}}", image) == theirs


async def test_a_new_tag_of_a_bad_image_that_was_there_goes_alone(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    one, bad = app_image("1"), app_image("known", **BAD)
    repository = one.removesuffix(":1")
    engine.tag(bad, f"{repository}:2")
    push(engine, f"{repository}:2")
    engine.docker("rmi", f"{repository}:2")
    make_container(one, "api")
    assert (await deploy(f"{repository}:2", keep=2)).outcome is Outcome.ROLLED_BACK
    assert tags(engine, repository) == ["1", "known"]
