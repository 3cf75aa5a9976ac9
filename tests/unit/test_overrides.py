"""What the user said is told from what the image said; the rest follows the new image."""

import posixpath
from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.inspected import ENGINES, container, copied, image

from lookout.model import Json
from lookout.overrides import command, env, overrides, remarks
from lookout.pins import NO_PINS, Pins, of

V1 = image("v1")["Config"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_without_options_takes_every_default_of_the_new_image(engine: str) -> None:
    body = copied(container(engine), engine=engine).body
    inherited = {
        *("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "StopSignal"),
        *("ExposedPorts", "Healthcheck", "Volumes", "Shell", "OnBuild"),
    }
    assert inherited.isdisjoint(body)
    assert not {"role", "only1"} & set(body["Labels"])


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        pytest.param(
            ["X=9", "MODE=prod", "LEVEL=warn", "PATH=/bin:/v1bin", "VERSION=1", "GONE=1"],
            ["X=9", "MODE=prod", "LEVEL=warn"],
            id="also what is equal to the default",
        ),
        pytest.param(
            ["LEVEL", "EMPTY=", "D=1", "D=2", "PATH=/bin:/v1bin", "VERSION=1", "MODE=prod", "GONE=1"],
            ["LEVEL", "EMPTY=", "D=1", "D=2"],
            id="unset, empty and repeated variables",
        ),
        pytest.param(
            ["GONE=1", "MODE=a=b", "VERSION=1", "LEVEL=info", "PATH=/x"],
            ["GONE=1", "MODE=a=b", "VERSION=1", "LEVEL=info", "PATH=/x"],
            id="every variable of the image",
        ),
        pytest.param(V1["Env"], [], id="the same as the image's first ones counts as inherited"),
        pytest.param(
            ["PATH=/bin:/v1bin", "LEVEL=info", "X=9"], ["X=9"], id="an order that is not the engine's"
        ),
        pytest.param([], [], id="nothing"),
    ],
)
def test_the_order_of_env_tells_which_entries_are_the_users(entries: list[str], said: list[str]) -> None:
    assert env(entries, V1["Env"]) == said


def test_an_env_that_the_engine_did_not_order_is_remarked() -> None:
    assert not [*remarks(V1, V1)]
    (remark,) = remarks(V1 | {"Env": ["PATH=/bin:/v1bin", "LEVEL=info", "X=9"]}, V1)
    assert "order of Env" in remark


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        pytest.param({}, {}, id="both inherited"),
        pytest.param({"Cmd": ["x"]}, {"Cmd": ["x"]}, id="a command"),
        pytest.param(
            {"Entrypoint": ["/e"], "Cmd": None},
            {"Entrypoint": ["/e"]},
            id="an entrypoint ends the image's command",
        ),
        pytest.param(
            {"Entrypoint": ["/app.sh"], "Cmd": None},
            {"Entrypoint": ["/app.sh"]},
            id="even the image's own entrypoint",
        ),
        pytest.param(
            {"Entrypoint": ["/e"], "Cmd": ["cmd1"]},
            {"Entrypoint": ["/e"], "Cmd": ["cmd1"]},
            id="and then a command is the user's even if equal",
        ),
        pytest.param(
            {"Entrypoint": None, "Cmd": ["/app.sh"]},
            {"Entrypoint": [""], "Cmd": ["/app.sh"]},
            id="an entrypoint cleared by the command line",
        ),
        pytest.param(
            {"Entrypoint": None, "Cmd": ["cmd1"]},
            {"Entrypoint": [""], "Cmd": ["cmd1"]},
            id="which ends the image's command too",
        ),
        pytest.param(
            {"Entrypoint": [], "Cmd": ["cmd1"]},
            {"Entrypoint": []},
            id="an entrypoint cleared by compose, which does not",
        ),
        pytest.param(
            {"Entrypoint": [], "Cmd": ["/app.sh"]},
            {"Entrypoint": [], "Cmd": ["/app.sh"]},
            id="an entrypoint cleared by compose and a command",
        ),
    ],
)
def test_entrypoint_and_command_are_one_decision(asked: Json, sent: Json) -> None:
    assert command(V1 | asked, V1) == sent


@pytest.mark.parametrize("nothing", [None, []])
def test_null_and_an_empty_list_are_the_same_command(nothing: list[str] | None) -> None:
    assert command({"Entrypoint": nothing, "Cmd": ["x"]}, {"Cmd": ["x"]}) == {}
    assert command({"Entrypoint": ["e"], "Cmd": nothing}, {"Entrypoint": ["e"], "Cmd": []}) == {}


@pytest.mark.parametrize(
    ("key", "value"), [("User", "root"), ("WorkingDir", "/srv"), ("StopSignal", "SIGUSR1")]
)
def test_a_setting_is_kept_if_it_differs_from_the_old_default(key: str, value: str) -> None:
    assert overrides(V1 | {key: value}, V1, ())[key] == value
    assert key not in overrides(V1, V1, ())


def test_a_working_directory_that_the_engine_has_cleaned_is_still_the_images() -> None:
    defaults = V1 | {"WorkingDir": "/srv/"}
    assert "WorkingDir" not in overrides(V1 | {"WorkingDir": "/srv"}, defaults, ())
    assert overrides(V1 | {"WorkingDir": "/srv2"}, defaults, ())["WorkingDir"] == "/srv2"


def test_a_label_is_kept_unless_the_old_image_has_the_very_same() -> None:
    labels = {"role": "mine", "only1": "1", "team": "a", "empty": ""}
    said = overrides(V1 | {"Labels": V1["Labels"] | labels}, V1, ())["Labels"]
    assert said == {"role": "mine", "team": "a", "empty": "", "com.docker.compose.project": "fromimage"}


@pytest.mark.parametrize(
    "key",
    [
        "com.docker.compose.service",
        "com.docker.stack.namespace",
        "com.docker.swarm.node.id",
        "desktop.docker.io/binds/0/Source",
    ],
)
def test_labels_by_which_others_know_the_container_stay_even_if_the_image_has_them(key: str) -> None:
    config = {"Labels": {key: "x"}}
    assert overrides(config, config, ())["Labels"] == {key: "x"}


@pytest.mark.parametrize("key", ["lookout.swap.replaces", "lookout.swap.by", "com.docker.compose.replace"])
def test_labels_of_an_earlier_replacement_are_not_inherited(key: str) -> None:
    assert overrides({"Labels": {key: "x"}}, {}, ()) == {}


def test_only_the_users_ports_are_exposed() -> None:
    ports: Json = {"8080/tcp": {}, "9000/udp": {}, "81/tcp": {}}
    said = overrides(V1 | {"ExposedPorts": ports}, V1, ())
    assert said["ExposedPorts"] == {"81/tcp": {}}


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_container_that_publishes_no_port_exposes_none_of_its_own(nothing: Json | None) -> None:
    assert "ExposedPorts" not in copied(container(host={"PortBindings": nothing})).body


def test_a_port_of_the_old_image_that_is_published_stays_exposed() -> None:
    body = copied(container(host={"PortBindings": {"8080/tcp": [{"HostIp": "", "HostPort": "80"}]}})).body
    assert body["ExposedPorts"] == {"8080/tcp": {}}


def test_a_port_that_is_bound_but_was_not_exposed_stays_unexposed() -> None:
    body = copied(container(host={"PortBindings": {"7777/tcp": [{"HostIp": "", "HostPort": "80"}]}})).body
    assert "ExposedPorts" not in body


@pytest.mark.parametrize(
    ("check", "default", "said"),
    [
        pytest.param({"Interval": 5}, {}, {"Interval": 5}, id="one field"),
        pytest.param(
            {"Test": ["CMD", "x"], "StartInterval": 7, "StartPeriod": 3},
            {},
            {"Test": ["CMD", "x"], "StartInterval": 7, "StartPeriod": 3},
            id="several fields",
        ),
        pytest.param({"StartPeriod": 0}, {}, None, id="a zero means the image's"),
        pytest.param({"Test": ["NONE"]}, {}, {"Test": ["NONE"]}, id="switched off by the user"),
        pytest.param({}, {}, None, id="nothing"),
        pytest.param({"Test": ["NONE"]}, {"Test": ["NONE"]}, None, id="switched off by the old image"),
    ],
)
def test_a_healthcheck_is_merged_field_by_field(check: Json, default: Json, said: Json | None) -> None:
    of_image = V1["Healthcheck"] | default
    config = V1 | {"Healthcheck": of_image | check}
    assert overrides(config, V1 | {"Healthcheck": of_image}, ()).get("Healthcheck") == said


@pytest.mark.parametrize(
    ("config", "suspect"),
    [
        ({"Env": ["PATH=/old", *V1["Env"][1:]]}, "PATH"),
        ({"Env": ["VERSION=0", *(e for e in V1["Env"] if e != "VERSION=1")]}, "VERSION"),
        ({"Labels": {"org.opencontainers.image.version": "0"}}, "org.opencontainers.image.version"),
    ],
)
def test_what_looks_like_an_older_images_default_is_kept_and_remarked(config: Json, suspect: str) -> None:
    (remark,) = remarks(V1 | config, V1)
    assert remark.startswith(f"{suspect}: ")
    assert suspect in str(overrides(V1 | config, V1, ()))


def test_an_ordinary_override_is_not_suspect() -> None:
    own = ["LEVEL=warn", "MY_VERSION=3", *(e for e in V1["Env"] if e != "LEVEL=info")]
    assert not [*remarks(V1 | {"Env": own, "Labels": {"role": "mine"}}, V1)]


@pytest.mark.parametrize("absent", [{}, {"Config": None}], ids=["no Config", "null"])
def test_an_image_may_lack_every_key(absent: Json) -> None:
    body = copied(container(), old_image=absent, new_image={"Id": "sha256:2"} | absent).body
    assert body["Env"] == V1["Env"]
    assert body["Entrypoint"] == ["/app.sh"]


# Below, the engine's own merge is written down once more, to show that `overrides` is its inverse.


def merged(said: Json, image: Json) -> Json:
    """The Config that an engine makes of a request and an image."""
    config = {key: value for key, value in said.items() if value}
    for key in ("User", "WorkingDir", "StopSignal"):
        config.setdefault(key, image.get(key) or "")
    if config["WorkingDir"]:
        config["WorkingDir"] = posixpath.normpath(config["WorkingDir"])
    keys = {entry.partition("=")[0] for entry in said.get("Env") or []}
    inherited = [e for e in image.get("Env") or [] if e.partition("=")[0] not in keys]
    config["Env"] = [*(said.get("Env") or []), *inherited]
    for key in ("Labels", "ExposedPorts"):
        config[key] = (image.get(key) or {}) | (said.get(key) or {})
    check = {key: value for key, value in (said.get("Healthcheck") or {}).items() if value}
    config["Healthcheck"] = (image.get("Healthcheck") or {}) | check
    if not said.get("Entrypoint"):
        config["Cmd"] = said.get("Cmd") or image.get("Cmd")
        config["Entrypoint"] = image.get("Entrypoint") if said.get("Entrypoint") is None else []
    elif said["Entrypoint"] == [""]:
        config["Entrypoint"] = None
    return {"Cmd": None} | config


def configs(who: str) -> st.SearchStrategy[Json]:
    """Requests, or the Config of images: the values of different authors are never equal."""

    def some(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        return st.none() | values

    value = st.sampled_from([f"{who}1", f"{who}2"])
    key = st.sampled_from("ABCD")
    entries = st.dictionaries(key, value).map(lambda found: [f"{k}={v}" for k, v in found.items()])
    return st.fixed_dictionaries(
        {
            "Env": entries,
            "User": some(value),
            "WorkingDir": some(value.map(lambda path: f"/{path}/" if who != "user" else f"/{path}")),
            "StopSignal": some(value),
            "Labels": st.dictionaries(key, value),
            "ExposedPorts": st.dictionaries(st.sampled_from(["1/tcp", f"{who}/tcp"]), st.just({})),
            "Healthcheck": some(
                st.fixed_dictionaries(
                    {"Test": st.lists(value, min_size=1, max_size=1)}, optional={"Retries": value}
                )
            ),
            "Cmd": some(st.lists(value, min_size=1, max_size=2)),
            "Entrypoint": st.lists(value, min_size=1, max_size=2),
        }
    )


def requests() -> st.SearchStrategy[Json]:
    """Requests: as `configs`, with an entrypoint that may be left out or cleared."""
    return st.tuples(
        configs("user"),
        st.sampled_from([None, [], [""], ["user1"]]),
        st.sets(st.sampled_from(["A", "B"])),
    ).map(lambda drawn: drawn[0] | {"Entrypoint": drawn[1], "Env": [*drawn[2], *drawn[0]["Env"]]})


def again(config: Json, old: Json, new: Json, published: Collection[str], pins: Pins = NO_PINS) -> Json:
    return merged(overrides(config, old, published, pins), new)


@settings(deadline=None)
@given(requests(), configs("one"), configs("two"))
def test_a_copy_is_what_the_same_request_would_have_made_of_the_new_image(
    said: Json, old: Json, new: Json
) -> None:
    copy = again(merged(said, old), old, new, said["ExposedPorts"])
    assert copy == merged(said, new)


@settings(deadline=None)
@given(requests(), configs("user"))
def test_a_copy_on_the_same_image_changes_nothing(said: Json, same: Json) -> None:
    config = merged(said, same)
    assert again(config, same, same, ()) == config


#: What each word of `lookout.pin` keeps of a Config, in a form that is equal where an engine does the same.
KEPT: dict[str, Callable[[Json], Any]] = {
    "user": lambda config: config["User"] or "0",
    "workdir": lambda config: config["WorkingDir"] or "/",
    "stop-signal": lambda config: config["StopSignal"] or "SIGTERM",
    "entrypoint": lambda config: (config.get("Entrypoint") or [], config["Cmd"] or []),
    "cmd": lambda config: config["Cmd"] or [],
    "healthcheck": lambda config: _checked(config["Healthcheck"]),
    "env": lambda config: config["Env"],
    "env:A": lambda config: _entries(config, "A"),
    "env:C": lambda config: _entries(config, "C"),
    "labels": lambda config: list(config["Labels"].items()),
    "label:B": lambda config: [value for key, value in config["Labels"].items() if key == "B"],
    "expose": lambda config: list(config["ExposedPorts"]),
    "expose:1": lambda config: [port for port in config["ExposedPorts"] if port == "1/tcp"],
}
FIELDS = {
    "User": {"user"},
    "WorkingDir": {"workdir"},
    "StopSignal": {"stop-signal"},
    "Cmd": {"cmd", "entrypoint"},
    "Entrypoint": {"cmd", "entrypoint"},
    "Healthcheck": {"healthcheck"},
    "Env": {"env", "env:A", "env:C"},
    "Labels": {"labels", "label:B"},
    "ExposedPorts": {"expose", "expose:1"},
}


def pinned(config: Json) -> Pins:
    return of({"Name": "/api", "Config": config, "HostConfig": {}})


def _checked(check: Json) -> object:
    test = check.get("Test") or ["NONE"]
    return test if test == ["NONE"] else (test, check.get("Retries") or 3)


def _entries(config: Json, key: str) -> list[str]:
    return [entry for entry in config["Env"] if entry.partition("=")[0] == key]


@settings(deadline=None)
@given(
    requests(), st.tuples(configs("one"), configs("two"), configs("three")), st.sets(st.sampled_from([*KEPT]))
)
def test_what_is_pinned_stays_on_every_image_and_the_rest_follows_it(
    said: Json, images: tuple[Json, Json, Json], words: set[str]
) -> None:
    old, new, newest = images
    first = merged(said, old)
    assume(first["Cmd"] or first.get("Entrypoint"))  # an engine makes no container without either
    first["Labels"]["lookout.pin"] = ",".join(words)

    second = again(first, old, new, said["ExposedPorts"], pinned(first))
    third = again(second, new, newest, said["ExposedPorts"], pinned(second))

    for word in words:
        kept, now, later = (KEPT[word](config) for config in (first, second, third))
        if word == "env":  # what only the new image has comes behind it
            assert now[: len(kept)] == kept
            assert later[: len(now)] == now
        elif word in ("labels", "expose"):
            assert set(kept) <= set(now) <= set(later)
        elif kept or ":" not in word:
            assert kept == now == later
    unpinned = again(first, old, new, said["ExposedPorts"])
    for field, its_words in FIELDS.items():
        if not words & its_words:
            assert second.get(field) == unpinned.get(field)
