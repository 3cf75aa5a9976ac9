"""The engine's merge, and that what is told from its result gives the same result again."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.unit.inspected import ENGINES, container, image

from lookout.merge import changes, merge
from lookout.model import Json
from lookout.overrides import overrides

KEYS = st.sampled_from(["A", "B", "C"])
VALUES = st.sampled_from(["", "1", "2"])
WORDS = st.lists(st.sampled_from(["x", "y"]), max_size=2)
ENTRIES = st.one_of(KEYS, st.builds("{}={}".format, KEYS, VALUES))


def some(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=strategies)


DEFAULTS = some(
    User=VALUES,
    WorkingDir=st.sampled_from(["", "/a", "/b"]),
    StopSignal=VALUES,
    Env=st.lists(st.builds("{}={}".format, KEYS, VALUES), unique_by=lambda entry: entry[0]),
    Cmd=WORDS,
    Entrypoint=st.lists(st.sampled_from(["e", "f"]), max_size=1),
    Labels=st.dictionaries(KEYS, VALUES),
    ExposedPorts=st.dictionaries(st.sampled_from(["80/tcp", "81/tcp"]), st.just({})),
    Healthcheck=some(Test=WORDS, Interval=st.integers(0, 2), Retries=st.integers(0, 2)),
)
SAID = st.builds(
    lambda said, env, entrypoint: said | {"Env": env, "Entrypoint": entrypoint},
    DEFAULTS,
    st.lists(ENTRIES, max_size=4),
    st.sampled_from([None, [], [""], ["e"], ["g"]]),
)


def _has_command(config: Json) -> bool:
    """Without any the engine makes no container."""
    return bool(config.get("Cmd") or config.get("Entrypoint"))


@given(SAID, DEFAULTS)
def test_asked_for_again_on_the_same_image_nothing_changes(said: Json, defaults: Json) -> None:
    config = merge(said, defaults)
    assume(_has_command(config))
    again = overrides(config, defaults, ())
    assert merge(again, defaults) == config
    assert not [*changes(config, again, defaults)]


@given(SAID, DEFAULTS, DEFAULTS)
def test_a_copy_of_a_copy_is_that_copy(said: Json, old: Json, new: Json) -> None:
    config = merge(said, old)
    once = merge(overrides(config, old, ()), new)
    assume(_has_command(config) and _has_command(once))
    assert merge(overrides(once, new, ()), new) == once


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["plain", "web"])
def test_the_merge_is_the_engines_own(engine: str, what: str) -> None:
    config, defaults = container(engine, what)["Config"], image("v1", engine)["Config"]
    merged = merge(overrides(config, defaults, ()), defaults)
    shown = {key: config[key] for key in merged if key != "Volumes"}
    assert {key: value for key, value in merged.items() if key != "Volumes"} == shown


def test_the_changes_are_told_by_field_and_key() -> None:
    config = {
        "User": "a",
        "Env": ["MINE=1", "OLD=1", "BOTH=1"],
        "Labels": {"x": "1", "lookout.swap.by": "me"},
    }
    said = {"Env": ["MINE=1"], "Labels": {"lookout.swap.by": "me", "lookout.swap.name": "n"}}
    found = {c.field: (c.old, c.new) for c in changes(config, said, {"Env": ["BOTH=2", "NEW="], "User": "b"})}
    assert found == {
        "User": ("a", "b"),
        "Env BOTH": ("1", "2"),
        "Env NEW": (None, ""),
        "Env OLD": ("1", None),
        "Labels x": ("1", None),
    }
