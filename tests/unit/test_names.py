"""The names by which a half-done swap is recognised."""

from collections.abc import Callable

import pytest

from lookout import names
from lookout.names import final_name, is_leftover_name, new_name, old_name

OLD_ID = "0123456789abcdef" * 4


def test_labels_are_spelled_the_same_for_ever() -> None:
    """A later version finishes what an earlier one began."""
    assert {names.REPLACES, names.NAME, names.MODE, names.RESTART} == {
        "lookout.swap.replaces",
        "lookout.swap.name",
        "lookout.swap.mode",
        "lookout.swap.restart",
    }
    assert (names.BY, names.STOP_FIRST) == ("lookout.swap.by", "stop-first")


@pytest.mark.parametrize(
    ("temporary", "name"),
    [
        (new_name, "web.lookout-new.0123456789ab"),
        (old_name, "web.lookout-old.0123456789ab"),
    ],
)
def test_a_temporary_name_follows_from_name_and_id_and_leads_back(
    temporary: Callable[[str, str], str], name: str
) -> None:
    assert temporary("web", OLD_ID) == name
    assert is_leftover_name(name)
    assert final_name(name) == "web"


@pytest.mark.parametrize(
    "name",
    [
        "web",
        "web.lookout-new",
        "web.lookout-new.0123456789a",
        "web.lookout-new.0123456789abc",
        "web.lookout-new.0123456789aX",
        "web.lookout-new.0123456789ab.backup",
        "web.lookout-next.0123456789ab",
        "weblookout-new.0123456789ab",
    ],
)
def test_a_name_that_only_looks_like_it_belongs_to_its_user(name: str) -> None:
    assert not is_leftover_name(name)
    assert final_name(name) == name
