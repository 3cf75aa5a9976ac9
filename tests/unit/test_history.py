"""What is noted of images that were replaced, and whose names an image has."""

import json

import pytest
from tests.unit.inspected import container

from lookout.cleaner import is_only
from lookout.history import MOST, history, noted, to_label
from lookout.model import ImageName, Json, Reference
from lookout.names import REPLACED_IMAGES
from lookout.targets import Target

API = ImageName("ghcr.io", "acme/api")


def target(name: str, image: str, reference: str | None, label: object = None) -> Target:
    said = {} if label is None else {REPLACED_IMAGES: label if isinstance(label, str) else json.dumps(label)}
    one = container(config={"Labels": said}) | {"Name": f"/{name}", "Image": image}
    return Target(one, Reference.parse(reference) if reference else None)


def told(targets: list[Target], *stale: str) -> Json:
    return {entry.id: (sorted(entry.tags), entry.at) for entry in history(targets, stale, now=100.5)}


def test_what_runs_now_comes_before_what_ran_before() -> None:
    targets = [target("api", "i2", "ghcr.io/acme/api:2", [["i1", ["1"], 50], ["i0", ["0"], 40]])]
    assert [*told(targets, "api").items()] == [("i2", (["2"], 100)), ("i1", (["1"], 50)), ("i0", (["0"], 40))]


def test_several_containers_have_one_history() -> None:
    targets = [
        target("a", "i2", "ghcr.io/acme/api:2", [["i1", ["1"], 50]]),
        target("b", "i1", "ghcr.io/acme/api:stable", [["i0", ["0"], 60]]),
    ]
    assert told(targets, "a", "b") == {"i2": (["2"], 100), "i1": (["1", "stable"], 100), "i0": (["0"], 60)}


def test_what_runs_again_is_not_to_be_removed_but_its_old_tag_is_not_forgotten() -> None:
    entries = history([target("api", "i1", "ghcr.io/acme/api:1", [["i0", ["0"], 50]])], ["api"], now=100)
    again = target("api", "i1", "ghcr.io/acme/api:2", to_label(entries))
    assert [entry.id for entry in noted([again])] == ["i0"]
    assert told([again], "api") == {"i1": (["1", "2"], 100), "i0": (["0"], 50)}


def test_who_stays_tells_only_what_is_noted_on_it() -> None:
    targets = [
        target("same", "new", "ghcr.io/acme/api:3", [["i1", ["1"], 50]]),
        target("other", "i2", "ghcr.io/acme/api:2"),
    ]
    assert told(targets, "other") == {"i2": (["2"], 100), "i1": (["1"], 50)}


def test_an_image_that_was_run_without_a_tag_has_none() -> None:
    digest = f"ghcr.io/acme/api@sha256:{'a' * 64}"
    assert told([target("a", "i1", digest), target("b", "i2", None)], "a", "b") == {
        "i1": ([], 100),
        "i2": ([], 100),
    }


def test_the_oldest_are_forgotten() -> None:
    many = [[f"i{at}", ["1"], at] for at in range(2 * MOST)]
    entries = history([target("api", "i", None, many)], ["api"], now=1000)
    assert len(entries) == MOST
    assert entries[-1].at == MOST + 1


def test_a_label_can_be_read_again() -> None:
    entries = history([target("api", "i2", "ghcr.io/acme/api:2", [["i1", ["1"], 50]])], ["api"], now=100)
    assert noted([target("api", "new", None, to_label(entries))]) == entries


@pytest.mark.parametrize(
    "label",
    [
        *("", "{", "7", "null", "[7]", '[["i"]]', '[["i", 7, 7]]', '[["i", [], "x"]]'),
        *('[["i", [], Infinity]]', "[" * 9999),
    ],
)
def test_a_label_that_somebody_has_changed_says_nothing(label: str) -> None:
    assert noted([target("api", "i", None, label)]) == []


@pytest.mark.parametrize(
    ("tags", "digests", "only"),
    [
        (["ghcr.io/acme/api:1"], [], True),
        (["ghcr.io/acme/api:1", "ghcr.io/acme/api:2"], ["ghcr.io/acme/api@sha256:ab"], True),
        ([], [], True),
        (None, None, True),
        ([], ["ghcr.io/acme/api@sha256:ab"], True),
        (["ghcr.io/acme/api@sha256:ab"], [], True),
        (["ghcr.io/acme/api:1", "ghcr.io/acme/api:stable"], [], False),
        (["ghcr.io/acme/api:1", "backup:1"], [], False),
        (["ghcr.io/acme/api:1"], ["mirror.example.com/acme/api@sha256:ab"], False),
        (["acme/api:1"], [], False),
        (["<none>:<none>"], [], False),
    ],
)
def test_an_image_with_a_name_of_another_reason_is_told_apart(
    tags: list[str] | None, digests: list[str] | None, only: bool
) -> None:
    image = {"RepoTags": tags, "RepoDigests": digests}
    assert is_only(image, API, frozenset(["1", "2"])) is only
