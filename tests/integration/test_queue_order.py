"""Messages of one image are deployed in the order in which they were sent, and wait for no other image."""

import secrets

import pytest

from lookout.model import Outcome
from testbed.engine import PrivateEngine
from testbed.images import make_image
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.service import ENDED_WITHIN, WAITS, Service, let_go
from tests.integration.swaps import beside

ENDS = {*Outcome}

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(300)]


def test_fifty_messages_of_an_image_whose_deploy_lasts_keep_no_other_image_from_its_deploy(
    engine: PrivateEngine,
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    inspect: Inspect,
) -> None:
    """The first deploy cannot end before the other image is deployed: only then it is let go."""
    slow = make_container(app_image("1"), "slow")
    lasts, three, four = app_image("2", changes=[WAITS]), app_image("3"), app_image("4")
    web_one, web_two = beside(engine, lasts, "1", "2")
    quick = make_container(web_one, "quick")
    lookout = service.start()
    first = service.send(lasts, DeployTimeSeconds=900)
    lookout.wait_for("started", message_id=first)

    *others, last = [service.send(three if number % 2 else four) for number in range(49)]
    lookout.wait_for("deployed", message_id=(other := service.send(web_two)))
    assert inspect(quick)["Config"]["Image"] == web_two
    lookout.wait_for("superseded", count=len(others))
    assert {event["message_id"] for event in lookout.logged("superseded")} == {*others}
    assert not lookout.logged("deployed", message_id=first)

    let_go(engine, slow)
    lookout.wait_for("deployed", message_id=last)
    assert inspect(slow)["Config"]["Image"] == four
    service.wait_until_settled()
    steps = [(e["event"], e["message_id"]) for e in lookout.events if e["event"] in ("deploying", "deployed")]
    assert steps == [
        ("deploying", first),
        ("deploying", other),
        ("deployed", other),
        ("deployed", first),
        ("deploying", last),
        ("deployed", last),
    ]


def test_in_a_group_of_a_fifo_queue_a_failure_in_the_middle_changes_no_order(
    engine: PrivateEngine,
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    """The second deploy fails for a while, since no registry answers, the third one for good.

    Nothing here runs the image of the fourth.
    """
    queue_url = sqs.create_fifo_queue()
    away = f"127.0.0.1:1/test-{secrets.token_hex(4)}/web"
    make_image(engine, f"{away}:1")
    name, _ = make_container(app_image("1"), "api"), make_container(f"{away}:1", "web")
    bad = app_image("3", changes=['CMD ["false"]'])
    images = [app_image("2"), f"{away}:2", bad, "ghcr.io/acme/nobody:1", app_image("4")]
    messages = [send_in_group(sqs, queue_url, image, "shop") for image in images]

    lookout = service.start(SqsQueueUrl=queue_url, RetryForSeconds="20", PullTimeoutSeconds="3")
    lookout.wait_for("deployed", message_id=messages[4])

    assert inspect(name)["Config"]["Image"] == images[4]
    steps = [(e["event"], e["message_id"]) for e in lookout.events if e["event"] in (*ENDS, "deploying")]
    tries = len(lookout.logged("failed"))
    assert tries > 1
    assert steps == [
        ("deploying", messages[0]),
        ("deployed", messages[0]),
        *[("deploying", messages[1]), ("failed", messages[1])] * tries,
        ("deploying", messages[2]),
        ("rolled_back", messages[2]),
        ("deploying", messages[3]),
        ("not_here", messages[3]),
        ("deploying", messages[4]),
        ("deployed", messages[4]),
    ]
    service.wait_until_settled(queue_url)
    dead = [letter["MessageAttributes"]["MessageId"]["StringValue"] for letter in service.dead_letters()]
    assert dead == messages[1:4]


def test_of_several_groups_of_a_fifo_queue_each_message_is_deployed_though_they_are_for_one_image(
    app_image: AppImage, make_container: MakeContainer, service: Service, sqs: LocalSqs, inspect: Inspect
) -> None:
    queue_url = sqs.create_fifo_queue()
    name = make_container(app_image("1"), "api")
    images = [app_image(tag) for tag in ("2", "3", "4")]
    messages = [send_in_group(sqs, queue_url, image, image[-1]) for image in images]
    lookout = service.start(SqsQueueUrl=queue_url)
    service.wait_until_settled(queue_url)
    assert [event["message_id"] for event in lookout.logged("deployed")] == messages
    assert inspect(name)["Config"]["Image"] == images[-1]


def send_in_group(sqs: LocalSqs, queue_url: str, image: str, group: str) -> str:
    repository, _, tag = image.rpartition(":")
    body = {"ImageName": repository, "ImageTag": tag}
    return sqs.send(queue_url, body, MessageGroupId=group, MessageDeduplicationId=image)


def test_a_message_that_comes_after_a_newer_one_was_deployed_is_superseded_after_a_restart_too(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    service.send(app_image("2"))
    [one] = sqs.receive(service.queue_url)
    service.send(app_image("3"))
    [other] = sqs.receive(service.queue_url)
    newest = service.send(app_image("4"))
    lookout = service.start()
    lookout.wait_for("deployed", message_id=newest)
    container = inspect(name)["Id"]

    sqs.show(service.queue_url, one)
    lookout.wait_for("superseded", message_id=one["MessageId"])
    assert lookout.terminate(ENDED_WITHIN) == 0
    lookout = service.start()
    sqs.show(service.queue_url, other)
    superseded = lookout.wait_for("superseded", message_id=other["MessageId"])

    assert newest in superseded["reason"]
    assert inspect(name)["Id"] == container
    service.wait_until_settled()
