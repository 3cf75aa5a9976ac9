"""What Compose is told of a container that was replaced, and what is said of its next `up`."""

import pytest
from tests.unit.inspected import NEIGHBOUR, around, container, copied, image

from lookout.model import Json
from lookout.plan import Plan

IMAGE = "com.docker.compose.image"
FROM = "lookout.swap.composed-from"
OF_COMPOSE = {
    IMAGE: "sha256:old",
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.project.config_files": "/srv/shop/compose.yaml",
    "com.docker.compose.project.working_dir": "/srv/shop",
}
NEW = image("v2")["Id"]


def composed(created_from: str = "app:v1", *, shares: str = "", **labels: str) -> Json:
    """A container of Compose; keyword arguments are its other labels, after their last dot."""
    known = {f"com.docker.compose.{key}": value for key, value in labels.items()}
    mode = {"NetworkMode": f"container:{shares}"} if shares else {}
    config = {"Image": created_from, "Labels": OF_COMPOSE | known}
    return container(config=config, host=mode, mounts=[])


def after(plan: Plan) -> Json:
    """The same container, once it has been replaced as planned."""
    old = composed(plan.image)
    old["Config"]["Labels"] = plan.body["Labels"]
    return old | {"Image": plan.image_id}


SAME = [
    ("app:v1", "app:v1"),
    ("app", "app:latest"),
    ("docker.io/library/app:v1", "app:v1"),
]
OTHER = [
    ("app:v1", "app:v2"),
    ("app:v1@sha256:" + "0" * 64, "app:v1"),
    ("sha256:" + "0" * 64, "app:v1"),
]


@pytest.mark.parametrize(("created_from", "reference"), SAME)
def test_compose_learns_of_the_new_image_where_its_file_has_the_same_tag(
    created_from: str, reference: str
) -> None:
    copy = copied(composed(created_from), reference=reference)
    assert copy.body["Labels"][IMAGE] == NEW
    assert FROM not in copy.body["Labels"]
    assert copy.body["Image"] == reference
    assert not copy.remarks


@pytest.mark.parametrize(("created_from", "reference"), OTHER)
def test_compose_goes_on_seeing_its_own_image_where_its_file_has_another_tag(
    created_from: str, reference: str
) -> None:
    copy = copied(composed(created_from), reference=reference)
    assert copy.body["Labels"][IMAGE] == "sha256:old"
    assert copy.body["Labels"][FROM] == created_from
    assert copy.body["Image"] == reference
    (remark,) = copy.remarks
    tag = reference.partition(":")[2]
    for known in (created_from, "service web of project shop", "/srv/shop/compose.yaml", "/srv/shop/.env"):
        assert known in remark
    assert f"the tag {tag} there" in remark


def test_what_the_file_says_is_known_through_any_number_of_tags() -> None:
    second = copied(after(copied(composed(), reference="app:v2")), reference="app:v3")
    assert second.body["Labels"][FROM] == "app:v1"
    assert second.body["Labels"][IMAGE] == "sha256:old"
    (remark,) = second.remarks
    assert "app:v1" in remark
    assert "app:v2" not in remark


def test_compose_learns_what_its_tag_means_by_now_when_the_container_comes_back_to_it() -> None:
    # Also where both tags mean one image.
    back = copied(after(copied(composed(), reference="app:v2")), reference="app:v1")
    assert back.body["Labels"][IMAGE] == NEW
    assert FROM not in back.body["Labels"]
    assert not back.remarks


def test_a_container_that_is_recreated_on_its_own_image_keeps_what_compose_knows() -> None:
    v1 = image("v1")
    old = composed()
    copy = copied(old, reference=old["Image"], new_image=v1)
    assert copy.body["Labels"][IMAGE] == "sha256:old"
    assert not copy.remarks

    old = after(copied(composed(), reference="app:v2")) | {"Image": old["Image"]}
    copy = copied(old, reference=old["Image"], new_image=v1)
    assert copy.body["Labels"][IMAGE] == "sha256:old"
    assert copy.body["Labels"][FROM] == "app:v1"


@pytest.mark.parametrize(
    "old",
    [
        pytest.param(container(mounts=[]), id="not made by Compose"),
        pytest.param(composed(oneoff="True"), id="made by `docker compose run`"),
    ],
)
def test_of_a_container_that_up_does_not_look_after_nothing_is_said(old: Json) -> None:
    copy = copied(old)
    assert copy.body["Labels"].get(IMAGE) == (old["Config"].get("Labels") or {}).get(IMAGE)
    assert FROM not in copy.body["Labels"]
    assert not copy.remarks


def test_that_compose_makes_anew_what_shares_a_namespace_of_a_replaced_container_is_remarked() -> None:
    old = composed(shares=NEIGHBOUR)
    assert not copied(old, reference="app:v1").remarks
    replaced = around(successors={NEIGHBOUR: "neighbour.lookout-new"})
    (remark,) = copied(old, reference="app:v1", surroundings=replaced).remarks
    assert "by the same tag" in remark
    (remark,) = copied(old, reference="app:v2", surroundings=replaced).remarks
    assert "the next `docker compose up` puts that back" in remark


@pytest.mark.parametrize(
    ("shares", "leaves"), [("", "changes, and"), (NEIGHBOUR, "changes or the container")]
)
def test_until_when_up_leaves_a_container_alone_depends_on_what_it_shares(shares: str, leaves: str) -> None:
    (remark,) = copied(composed(shares=shares)).remarks
    assert leaves in remark


def test_where_the_project_lies_is_left_out_if_it_is_not_known_and_shown_safely_if_it_is() -> None:
    bare = composed()
    for key in ("config_files", "working_dir"):
        del bare["Config"]["Labels"][f"com.docker.compose.project.{key}"]
    (remark,) = copied(bare).remarks
    assert "or in its .env" in remark
    (remark,) = copied(composed(project="a\x1b[31m\nb")).remarks
    assert remark.isprintable()


def test_the_file_of_variables_that_compose_was_given_is_named_instead_of_the_usual_one() -> None:
    given = {"project.environment_file": "/srv/prod.env", "project.config_files": "-"}
    (remark,) = copied(composed(**given)).remarks
    assert "or in /srv/prod.env" in remark
    assert "of project shop:" in remark
