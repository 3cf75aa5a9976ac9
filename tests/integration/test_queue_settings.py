"""What the settings of the queue make of messages, in a running Lookout."""

import json
import secrets

import pytest

from testbed.engine import PrivateEngine
from testbed.images import make_image
from testbed.registry import Registry
from testbed.sqs import LocalSqs
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.fleet import Fleet
from tests.integration.running import Event
from tests.integration.service import ENDED_WITHIN, Service

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(120)]

DELETED = "the message is deleted"
LAID_ASIDE = "the message is sent to the dead-letter queue and deleted"


def reasons(service: Service) -> dict[str, tuple[Event, str]]:
    """The dead letters by the id of their message: what was asked for, and how it ended."""
    return {
        letter["MessageAttributes"]["MessageId"]["StringValue"]: (
            json.loads(letter["Body"]),
            letter["MessageAttributes"]["Outcome"]["StringValue"],
        )
        for letter in service.dead_letters()
    }


def test_what_no_container_here_runs_is_deleted_where_that_is_set_but_not_what_is_for_another_host(
    service: Service, sqs: LocalSqs
) -> None:
    lookout = service.start(UnmatchedMessages="delete", HostId="a")
    unmatched = service.send("ghcr.io/acme/nobody:1", HostId="a")
    other = service.send("ghcr.io/acme/nobody:1", HostId="b")
    assert lookout.wait_for("not_here", message_id=unmatched)["next"] == DELETED
    assert "tried again" in lookout.wait_for("not_here", message_id=other)["next"]
    assert lookout.terminate(ENDED_WITHIN) == 0
    assert sum(sqs.count(service.queue_url)) == 1
    assert reasons(service) == {}


def test_a_failed_deploy_is_tried_again_for_as_long_as_is_set_and_then_laid_aside(
    engine: PrivateEngine, make_container: MakeContainer, service: Service, inspect: Inspect
) -> None:
    image = f"127.0.0.1:1/test-{secrets.token_hex(4)}/api"  # where no registry is
    make_image(engine, f"{image}:1")
    name = make_container(f"{image}:1", "api")
    before = inspect(name)
    lookout = service.start(RetryForSeconds="4", PullTimeoutSeconds="1")
    message = service.send(f"{image}:2")
    lookout.wait_for("failed", message_id=message, next=LAID_ASIDE)
    first, *_, last = lookout.logged("failed", message_id=message)
    assert "tried again" in first["next"]
    service.wait_until_settled()
    assert lookout.terminate(ENDED_WITHIN) == 0
    assert len(lookout.logged("failed")) == lookout.order("deploying", "failed").count("deploying")
    assert last["seconds"] >= 0
    assert reasons(service) == {message: ({"ImageName": image, "ImageTag": "2"}, "failed")}
    assert inspect(name) == before


def test_a_bad_image_is_laid_aside_and_what_its_health_check_says_is_not(
    app_image: AppImage, make_container: MakeContainer, service: Service, inspect: Inspect
) -> None:
    check = "HEALTHCHECK --interval=200ms --timeout=1s --retries=1 CMD echo hunter2; false"
    name, bad = make_container(app_image("1"), "api"), app_image("2", changes=[check])
    old = inspect(name)["Id"]
    lookout = service.start()
    message = service.send(bad, DeployTimeSeconds=5)
    assert lookout.wait_for("rolled_back", message_id=message)["next"] == LAID_ASIDE
    service.wait_until_settled()
    [letter] = service.dead_letters()
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes == {
        "MessageId": message,
        "Outcome": "rolled_back",
        "Reason": f"{name}: it is unhealthy",
    }
    assert inspect(name)["Id"] == old
    assert (
        "hunter2"
        in lookout.logged("the swap failed; bringing the old container back")[0]["log_tail_of_the_new"]
    )


@pytest.mark.timeout(300)
def test_of_two_hosts_on_one_queue_each_deploys_what_is_for_it_and_either_what_is_for_none(
    engine: PrivateEngine, registry: Registry, service: Service
) -> None:
    with Fleet(engine, registry, size=6) as fleet:
        for_a, for_b, for_any = fleet.repositories[:2], fleet.repositories[2:4], fleet.repositories[4:]
        lookouts = {host: service.start(HostId=host) for host in ("a", "b")}
        sent = {
            "a": [service.send(f"{repository}:1", HostId="a") for repository in for_a],
            "b": [service.send(f"{repository}:2", HostId="b") for repository in for_b],
        }
        for_all = [service.send(f"{repository}:3") for repository in for_any]
        nobodys = service.send(f"{for_a[0]}:4", HostId="c")
        for host, lookout in lookouts.items():
            for message in sent[host]:
                lookout.wait_for("deployed", message_id=message)
            # Which of the two gets it each time it comes is chance.
            lookout.wait_for("not_here", message_id=nobodys, seconds=150)
        for message in for_all:
            service.wait_for_one("deployed", message_id=message)
        for lookout in lookouts.values():
            assert lookout.terminate(ENDED_WITHIN) == 0
        assert fleet.runs() == {
            repository: fleet.expected(repository, tag)
            for tag, own in (("1", for_a), ("2", for_b), ("3", for_any))
            for repository in own
        }
    for host, lookout in lookouts.items():
        deployed = {event["message_id"] for event in lookout.logged("deployed")}
        assert deployed - {*for_all} == {*sent[host]}
