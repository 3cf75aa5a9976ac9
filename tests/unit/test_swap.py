"""When what stands under a temporary name may be taken away."""

import datetime

import pytest

from lookout.swap import is_abandoned

OLD = {"Id": "a" * 64, "Config": {"StopTimeout": 30}}


@pytest.mark.parametrize(
    ("replaces", "by", "age", "abandoned"),
    [
        pytest.param("a" * 64, "me", 0, True, id="one's own"),
        pytest.param("a" * 64, "another", 0, False, id="another Lookout's, just made"),
        pytest.param("a" * 64, "another", 140, False, id="another's, whose stop may take this long"),
        pytest.param("a" * 64, "another", 160, True, id="another's, older than any swap"),
        pytest.param("b" * 64, "me", 1000, False, id="of another container"),
    ],
)
def test_a_new_container_is_abandoned_if_nobody_can_be_at_work_with_it(
    replaces: str, by: str, age: int, abandoned: bool
) -> None:
    created = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
    labels = {"lookout.swap.replaces": replaces, "lookout.swap.by": by}
    new = {"Created": created.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"), "Config": {"Labels": labels}}
    assert is_abandoned(new, OLD, by="me") is abandoned
