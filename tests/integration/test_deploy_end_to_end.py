"""`lookout deploy` and the daemon: the real commands, a real queue, engine and registry."""

import json
import re
from pathlib import Path

import pytest

from lookout.result import Result
from testbed.sqs import LocalSqs
from tests.integration.answering import Command, remove_reply_queues, reply_queues
from tests.integration.conftest import AppImage, Inspect, MakeContainer
from tests.integration.service import Service

pytestmark = [pytest.mark.engine, pytest.mark.queue, pytest.mark.timeout(180)]

DIES = 'CMD ["sh", "-c", "echo no such table >&2; exit 3"]'


@pytest.fixture
def command(service: Service, sqs: LocalSqs, tmp_path: Path) -> Command:
    return Command({"SqsQueueUrl": service.queue_url, **sqs.environment()}, tmp_path)


@pytest.fixture(autouse=True)
def none_before(sqs: LocalSqs) -> None:
    remove_reply_queues(sqs)


def test_a_good_tag_ends_with_0_and_its_progress_is_seen(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    command: Command,
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    image = app_image("2", changes=["LABEL two=2"])
    service.start(HostId="web-1", MonitorSeconds="1.5")
    told = command(image)
    assert told.code == 0, told.out
    assert inspect(name)["Config"]["Image"] == image
    assert f"{name}: monitoring" in told.lines
    assert re.search(r"^host +web-1$", told.out, re.MULTILINE)
    downtime = re.search(rf"^{name} +deployed +\S+:1 -> \S+:2 +([0-9.]+) s$", told.out, re.MULTILINE)
    assert downtime
    again = command(image, "--json")
    assert (again.code, json.loads(again.out)["Outcome"]) == (0, "unchanged")
    assert reply_queues(sqs) == []
    service.wait_until_settled()


def test_an_image_that_dies_ends_with_1_and_its_last_words(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    command: Command,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    before = inspect(name)["Id"]
    image = app_image("2", changes=[DIES])
    service.start()
    told = command(image, GITHUB_ACTIONS="true")
    assert told.code == 1
    assert "  | no such table" in told.lines
    assert f"::error title=deploy of {image.replace(':', '%3A')}%3A rolled back::" in told.out
    assert inspect(name)["Id"] == before


def test_with_nobody_there_it_ends_with_3_and_is_deployed_later(
    app_image: AppImage,
    make_container: MakeContainer,
    service: Service,
    command: Command,
    sqs: LocalSqs,
    inspect: Inspect,
) -> None:
    name = make_container(app_image("1"), "api")
    image = app_image("2", changes=["LABEL two=2"])
    told = command(image, "--timeout", "1")
    assert told.code == 3
    assert "may be deployed later" in told.out
    assert reply_queues(sqs) == []
    service.start()
    service.wait_for_one("deployed")
    assert inspect(name)["Config"]["Image"] == image
    service.wait_until_settled()


def test_several_at_once_each_get_their_own_answer(
    app_image: AppImage, make_container: MakeContainer, service: Service, command: Command, sqs: LocalSqs
) -> None:
    image = app_image("1")
    make_container(image, "api")
    service.start()
    name = image.rpartition(":")[0]
    asked = [image, f"{name}:none", *(image.replace("/api:", f"/other{n}:") for n in range(3))]
    told = command.side_by_side(*([one, "--json"] for one in asked))
    results = [Result.from_json(one.out) for one in told]
    assert [f"{one.image_name}:{one.image_tag}" for one in results] == asked
    assert [one.code for one in told] == [0, 1, 1, 1, 1]
    assert [one.outcome for one in results] == ["unchanged", "failed", *["not_here"] * 3]
    unknown, nowhere = results[1], results[2]
    assert re.search("no such|not found|unknown", unknown.error)
    assert (unknown.will_retry, nowhere.will_retry) == (False, True)
    assert reply_queues(sqs) == []
