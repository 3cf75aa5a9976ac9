"""Which containers a message means, and which are left alone."""

from pathlib import Path
from typing import Any

import pytest

from lookout.identity import own_id
from lookout.model import DeployRequest, ImageName, ImageRef, Json, Origin, Outcome
from lookout.targets import Target, match, overtaken, why_left_alone

OLD_ID, NEW_ID = "sha256:" + "1a" * 32, "sha256:" + "2b" * 32
API = ImageName("ghcr.io", "acme/api")


def container(image: str, **changes: Any) -> Json:
    inspected: Json = {
        "Id": "c" * 64,
        "Name": "/api",
        "Image": OLD_ID,
        "Config": {"Image": image, "Labels": changes.pop("labels", None)},
        "State": {"Running": True, "Paused": False},
        "HostConfig": changes.pop("host", {}),
    }
    return inspected | changes


def found(
    image: str, wanted: ImageName = API, tags: list[str] | None = None, **changes: Any
) -> Target | None:
    return match(container(image, **changes), {"RepoTags": tags or []}, wanted, own_id=None)


@pytest.mark.parametrize(
    "image", ["ghcr.io/acme/api", "ghcr.io/acme/api:41", "ghcr.io/acme/api@sha256:" + "a" * 64]
)
def test_a_container_matches_by_the_repository_it_was_created_from(image: str) -> None:
    assert found(image)


@pytest.mark.parametrize("image", ["ghcr.io/acme/api2:41", "acme/api:41", "ghcr.io:443/acme/api:41", "api"])
def test_another_repository_does_not_match(image: str) -> None:
    assert not found(image)


@pytest.mark.parametrize("image", ["redis", "redis:6", "library/redis:6", "docker.io/library/redis"])
def test_spellings_of_one_repository_match_each_other(image: str) -> None:
    assert found(image, ImageName.parse("docker.io/library/redis"))


@pytest.mark.parametrize("image", [OLD_ID, OLD_ID[7:], OLD_ID[7:19], OLD_ID[:19]])
def test_a_container_made_from_an_image_id_matches_if_the_image_has_only_this_repository(image: str) -> None:
    target = found(image, tags=["ghcr.io/acme/api:41", "ghcr.io/acme/api:latest"])
    assert target
    assert not target.left_alone
    assert not found(image, tags=["ghcr.io/acme/web:41"])
    assert not found(image, tags=[])


def test_a_container_made_from_the_id_of_an_image_with_several_names_is_left_alone() -> None:
    tags = ["ghcr.io/acme/web:41", "ghcr.io/acme/api:41", "ghcr.io/acme/api:latest"]
    target = found(OLD_ID, tags=tags)
    assert target
    assert target.left_alone.endswith("several names: ghcr.io/acme/api, ghcr.io/acme/web")
    assert not found(OLD_ID, ImageName("ghcr.io", "acme/other"), tags=tags)


def test_the_names_of_an_image_are_those_of_its_digests_too() -> None:
    image = {"RepoTags": ["ghcr.io/acme/api:41"], "RepoDigests": ["ghcr.io/acme/web@sha256:" + "a" * 64]}
    target = match(container(OLD_ID), image, API, None)
    assert target
    assert "several names" in target.left_alone
    assert match(container(OLD_ID), {"RepoDigests": ["ghcr.io/acme/api@sha256:" + "a" * 64]}, API, None)


def test_what_holds_of_the_container_itself_comes_before_the_names_of_its_image() -> None:
    target = found(OLD_ID, tags=["ghcr.io/acme/api:1", "web:1"], labels={"lookout.enable": "false"})
    assert target
    assert target.left_alone == "is labelled lookout.enable=false"


def test_a_repository_that_looks_like_a_short_id_of_another_image_is_a_name() -> None:
    assert found("beef", ImageName.parse("beef"))


def test_the_new_reference_keeps_the_spelling_of_the_old_one() -> None:
    redis = ImageName.parse("redis")
    target = found("library/redis:6", redis)
    assert target
    assert target.spell(ImageRef(redis, "7")) == "library/redis:7"
    by_id = found(OLD_ID, redis, tags=["redis:6"])
    assert by_id
    assert by_id.spell(ImageRef(redis, "7")) == "redis:7"


@pytest.mark.parametrize(
    ("image", "tag", "image_id", "runs"),
    [
        ("ghcr.io/acme/api:42", "42", OLD_ID, True),
        pytest.param("ghcr.io/acme/api:42", "42", NEW_ID, False, id="same tag, other content"),
        pytest.param("ghcr.io/acme/api:41", "42", OLD_ID, False, id="other tag, same content"),
        pytest.param("ghcr.io/acme/api", "latest", OLD_ID, True, id="no tag means latest"),
        pytest.param("ghcr.io/acme/api@sha256:" + "a" * 64, "42", OLD_ID, True, id="by digest, same content"),
        pytest.param("ghcr.io/acme/api@sha256:" + "a" * 64, "42", NEW_ID, False, id="by digest"),
    ],
)
def test_it_runs_an_image_if_tag_and_content_agree(image: str, tag: str, image_id: str, runs: bool) -> None:
    target = found(image)
    assert target
    assert target.runs(ImageRef(API, tag), image_id) is runs


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"State": {"Running": True, "Paused": True}}, "is paused"),
        ({"State": {"Running": True, "Restarting": True, "Paused": False}}, ""),
        ({"labels": {"com.docker.swarm.task.id": "t"}}, "is a Swarm task"),
        ({"labels": {"com.docker.swarm.service.id": "s"}}, "is a Swarm task"),
        ({"Name": "/api.lookout-new.0123456789ab"}, "left over"),
        ({"Name": "/api.lookout-old.0123456789ab"}, "left over"),
    ],
)
def test_some_containers_are_left_alone_with_a_reason(changes: Json, reason: str) -> None:
    target = found("ghcr.io/acme/api:41", **changes)
    assert target
    assert reason in target.left_alone
    assert bool(reason) == bool(target.left_alone)


@pytest.mark.parametrize(
    ("value", "unless_required", "if_required"),
    [
        *((word, "", "") for word in ("true", "1", "yes", "on", " TRUE ", "Yes")),
        *(
            (word, "is labelled lookout.enable=false", "is labelled lookout.enable=false")
            for word in ("false", "0", "no", "off", "False\t", " NO ")
        ),
        (None, "", "is not labelled lookout.enable=true, which RequireLabel asks for"),
    ],
)
def test_a_label_says_whether_a_container_may_be_replaced(
    value: str | None, unless_required: str, if_required: str
) -> None:
    labels = {"other": "x"} if value is None else {"lookout.enable": value}
    inspected = container("ghcr.io/acme/api:41", labels=labels)
    for required, reason in ((False, unless_required), (True, if_required)):
        target = match(inspected, None, API, None, require_label=required)
        assert target
        assert target.left_alone == why_left_alone(inspected, None, required) == reason


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("value", ["", "flase", "enabled", "maybe\n\x1b[31m" + "é" * 500])
def test_a_label_that_says_neither_yes_nor_no_leaves_the_container_alone(value: str, required: bool) -> None:
    reason = why_left_alone(container("x", labels={"lookout.enable": value}), None, required)
    assert reason.startswith(f"is labelled lookout.enable={value[:5]!a}"[:-1])
    assert reason.endswith(": expected true or false")
    assert len(reason) < 250
    assert reason.isprintable()
    assert reason.isascii()


def test_a_label_that_allows_it_does_not_outweigh_other_reasons() -> None:
    labels = {"lookout.enable": "true", "com.docker.swarm.task.id": "t"}
    assert why_left_alone(container("x", labels=labels), None, True) == "is a Swarm task"
    paused = container("x", labels={"lookout.enable": "true"}, State={"Running": True, "Paused": True})
    assert why_left_alone(paused, None, True) == "is paused"


def test_lookout_leaves_itself_alone() -> None:
    target = match(container("ghcr.io/acme/api:41"), None, API, own_id="c" * 64)
    assert target
    assert target.left_alone == "is Lookout itself"


MOUNTS = """\
1 0 0:1 / / rw - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/AB
2 1 8:1 /var/lib/docker/containers/{id}/mounts/shm /var/lib/docker/containers/{id}/mounts/shm rw - tmpfs shm rw
"""


def test_the_own_container_is_known_by_the_files_that_the_engine_mounts(tmp_path: Path) -> None:
    line = "3 1 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw\n"
    (tmp_path / "mountinfo").write_text((MOUNTS + line).format(id="ab" * 32))
    assert own_id(tmp_path / "mountinfo") == "ab" * 32


def test_a_host_that_shows_the_mounts_of_its_containers_is_not_a_container(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS.format(id="ab" * 32))
    assert own_id(tmp_path / "mountinfo") is None
    assert own_id(tmp_path / "missing") is None


# Messages that come late


NOW = 2_000_000_000  # seconds since the epoch
SENT = NOW * 1000 - 60_000


def came_from(
    message_id: str, sent: int | str, *, tag: str = "41", group: str = "", **changes: Any
) -> Target:
    """A container with the labels of this message."""
    labels = {
        "lookout.message-id": message_id,
        "lookout.sent-timestamp": str(sent),
        "lookout.message-group-id": group,
        **changes.pop("labels", {}),
    }
    target = found(f"ghcr.io/acme/api:{tag}", labels=labels, **changes)
    assert target
    return target


def unlabelled(tag: str = "41") -> Target:
    target = found(f"ghcr.io/acme/api:{tag}")
    assert target
    return target


def late(*targets: Target, message_id: str = "m", sent: int = SENT, group: str = "") -> Outcome | None:
    """How a message that asks for tag 42 ends because of what these came from."""
    origin = Origin(message_id, sent, group)
    report = overtaken(targets, DeployRequest(ImageRef(API, "42"), origin=origin), NOW)
    return report.outcome if report else None


def test_a_message_older_than_what_runs_is_superseded_and_a_newer_one_is_not() -> None:
    assert late(came_from("other", SENT + 1)) is Outcome.SUPERSEDED
    assert late(came_from("other", SENT)) is None
    assert late(came_from("other", SENT - 1)) is None
    assert late(unlabelled(), came_from("other", SENT + 1)) is Outcome.SUPERSEDED
    assert late(unlabelled()) is None
    assert late() is None


def test_within_a_group_of_a_fifo_queue_its_own_order_counts_and_not_the_clock() -> None:
    newer = came_from("other", SENT + 1, group="api")
    assert late(newer, group="api") is None
    assert late(newer, group="web") is Outcome.SUPERSEDED
    assert late(newer) is Outcome.SUPERSEDED, "of another queue"
    assert late(came_from("other", SENT + 1), group="api") is Outcome.SUPERSEDED


def test_a_message_that_was_deployed_and_comes_again_changes_nothing() -> None:
    assert late(came_from("m", SENT, tag="42")) is Outcome.UNCHANGED
    ran_it_before = came_from("earlier", SENT - 9, tag="42")
    assert late(ran_it_before, came_from("m", SENT, tag="42")) is Outcome.UNCHANGED
    assert late(unlabelled("42"), came_from("m", SENT, tag="42")) is Outcome.UNCHANGED
    assert late(unlabelled("41"), came_from("m", SENT, tag="42")) is None, "one was not replaced"
    assert late(ran_it_before) is None


@pytest.mark.parametrize("sent", ["", "soon", "-1", "1e9", "٣", str(NOW * 1000 + 2 * 86_400_000)])
def test_a_label_that_cannot_be_true_holds_up_nothing(sent: str) -> None:
    assert late(came_from("other", sent)) is None


def test_what_is_left_alone_says_nothing_of_the_others() -> None:
    alone = came_from("other", SENT + 1, labels={"lookout.enable": "false"})
    assert late(alone) is None
    assert late(alone, came_from("m", SENT, tag="42")) is Outcome.UNCHANGED


def test_a_request_without_a_message_is_never_late() -> None:
    assert overtaken([came_from("other", SENT)], DeployRequest(ImageRef(API, "42")), NOW) is None
