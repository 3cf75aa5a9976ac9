"""Files that compose has written before the start are told from those that the program wrote."""

import json
from typing import Any

import pytest
from tests.unit.inspected import container, copied, volume

from lookout.layers import MOST_FILES, MOST_INJECTED, candidates
from lookout.model import Json

COMPOSE = {"com.docker.compose.project": "shop"}


def composed(labels: Json | None = None, **state: Any) -> Json:
    """A container of compose's, created at 09:22:32.3 and started at 09:22:38.9 for the first time."""
    old = container(config={"Labels": COMPOSE | (labels or {})}, mounts=[volume("abc", "/data")])
    old["Created"] = "2026-11-24T09:22:32.338767267Z"
    old["State"] = {
        "StartedAt": "2026-11-24T09:22:38.915175607Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    } | state
    return old


def stat(mtime: str = "2026-11-24T09:22:38Z", *, mode: int = 0o444, size: int = 5) -> Json:
    return {"name": "x", "size": size, "mode": mode, "mtime": mtime, "linkTarget": ""}


def carried(old: Json, **stats: Json) -> tuple[str, ...]:
    changes = [{"Path": f"/{name}", "Kind": 1} for name in stats]
    return copied(old, changes=changes, stats={f"/{name}": one for name, one in stats.items()}).archives


@pytest.mark.parametrize(
    ("mtime", "is_carried"),
    [
        ("2026-11-24T09:22:32Z", True),  # rounded down, before the creation
        ("2026-11-24T09:22:38Z", True),
        ("2026-11-24T09:22:39Z", True),  # rounded up, after the start
        ("2026-11-24T09:22:38.000000001Z", False),  # a program's own clock
        ("2026-11-24T09:22:38.5Z", False),
        ("2026-11-24T09:22:31Z", False),
        ("2026-11-24T09:22:40Z", False),
        ("1985-10-26T08:15:00Z", False),
    ],
)
def test_a_file_is_composes_if_its_time_is_whole_and_before_the_start(mtime: str, is_carried: bool) -> None:
    assert carried(composed(), conf=stat(mtime)) == (("/conf",) if is_carried else ())


@pytest.mark.parametrize(
    "change", [{"mode": 0o755 | 1 << 31}, {"mode": 0o777 | 1 << 27}, {"size": (1 << 20) + 1}], ids=str
)
def test_only_small_regular_files_are_carried(change: Json) -> None:
    assert carried(composed(), conf=stat(**change)) == ()


@pytest.mark.parametrize(
    ("started", "last"),
    [("2026-11-25T10:00:00.5Z", "2026-11-25T10:00:01Z"), ("0001-01-01T00:00:00Z", "2026-11-24T09:22:33Z")],
    ids=["started again", "never started"],
)
def test_compose_may_write_before_each_start(started: str, last: str) -> None:
    later = stat(last.replace("1Z", "2Z").replace("3Z", "4Z"))
    assert carried(composed(StartedAt=started), last=stat(last), later=later) == ("/last",)


def test_very_many_files_with_such_times_are_a_programs() -> None:
    files = {f"f{n:03}": stat() for n in range(MOST_INJECTED + 1)}
    assert not carried(composed(), **files)
    files.popitem()
    assert len(carried(composed(), **files)) == MOST_INJECTED


def test_a_copy_names_its_files_and_they_are_carried_again_whatever_their_times() -> None:
    first = copied(composed(), changes=[{"Path": "/conf", "Kind": 0}], stats={"/conf": stat()})
    label = first.body["Labels"]["lookout.swap.files"]
    assert json.loads(label) == ["/conf"]
    again = composed({"lookout.swap.files": label}, StartedAt="2026-12-24T00:00:00.1Z")
    changes = [{"Path": "/conf", "Kind": 0}, {"Path": "/log", "Kind": 1}]
    second = copied(again, changes=changes)
    assert second.archives == ("/conf",)
    assert second.body["Labels"]["lookout.swap.files"] == label
    assert candidates(again, changes) == []
    assert copied(again, changes=changes[1:]).archives == ()


def test_files_in_mounts_folders_and_what_is_deleted_are_not_looked_at() -> None:
    changes = [
        {"Path": path, "Kind": kind}
        for path, kind in (
            ("/etc", 0),
            ("/etc/conf", 0),
            ("/run/secrets/token", 1),
            ("/data", 1),
            ("/data/x", 1),
            ("/gone", 2),
        )
    ]
    assert candidates(composed(), changes) == ["/etc/conf"]
    assert candidates(container(config={"Labels": {}}), changes) == []


def test_a_layer_of_very_many_files_is_a_programs_own() -> None:
    changes = [{"Path": f"/cache/{n}", "Kind": 1} for n in range(MOST_FILES + 1)]
    assert not candidates(composed(), changes)
    assert len(candidates(composed(), changes[1:])) == MOST_FILES


def test_what_is_carried_is_not_remarked() -> None:
    changes = [{"Path": "/conf", "Kind": 1}, {"Path": "/other", "Kind": 1}]
    plan = copied(
        composed(), changes=changes, stats={"/conf": stat(), "/other": stat("2026-11-24T09:22:38.1Z")}
    )
    assert [remark.split()[0] for remark in plan.remarks if "inline config" in remark] == ["/other"]
