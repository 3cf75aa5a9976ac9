"""A label names what is kept although it is equal to the old image's default."""

from typing import Any

import pytest
from tests.unit.inspected import container, copied, image

from lookout.errors import CopyRefused
from lookout.model import Json
from lookout.overrides import command, env, healthcheck, overrides
from lookout.pins import NO_PINS, Pins, of
from lookout.plan import Plan

V1 = image("v1")["Config"]
ALL = "user,workdir,stop-signal,entrypoint,cmd,healthcheck,env,labels,expose"


def pinned(label: str | None, config: Json | None = None, **host: Any) -> Pins:
    """What the label says on a container of v1."""
    changed = V1 | (config or {})
    labels = (changed.get("Labels") or {}) | ({} if label is None else {"lookout.pin": label})
    return of({"Name": "/api", "Config": changed | {"Labels": labels}, "HostConfig": host})


def copy(label: str, **config: Any) -> Plan:
    old = container(config=config)
    old["Config"]["Labels"] = {**(old["Config"]["Labels"] or {}), "lookout.pin": label}
    return copied(old)


@pytest.mark.parametrize(
    ("word", "field"),
    [("user", "User"), ("workdir", "WorkingDir"), ("stop-signal", "StopSignal"), ("cmd", "Cmd")],
)
def test_a_pinned_field_is_sent_although_it_is_the_old_images(word: str, field: str) -> None:
    body = copy(word).body
    assert body[field] == V1[field]
    assert {"User", "WorkingDir", "StopSignal", "Cmd", "Entrypoint", "Healthcheck", "Env"} & set(body) == {
        field
    }


def test_only_the_variables_that_are_named_are_kept_in_their_order() -> None:
    assert copy("env:GONE,env:PATH").body["Env"] == ["PATH=/bin:/v1bin", "GONE=1"]


def test_all_variables_are_kept() -> None:
    assert copy("env").body["Env"] == V1["Env"]


def test_a_pinned_variable_stands_behind_those_of_the_user() -> None:
    entries = ["X=9", "LEVEL=warn", "PATH=/bin:/v1bin", "VERSION=1", "MODE=prod", "GONE=1"]
    pins = pinned("env:VERSION,env:X,env:LEVEL", {"Env": entries})
    assert env(entries, V1["Env"], pins) == ["X=9", "LEVEL=warn", "VERSION=1"]


def test_a_pinned_variable_keeps_its_value_where_the_order_is_not_the_engines() -> None:
    defaults = ["A=1", "B=1", "Z=1"]
    entries = ["A=1", "B=2", "C=1", "B=1"]
    assert env(entries, defaults, pinned("env:B", {"Env": entries})) == ["B=2", "C=1", "B=1"]


def test_only_the_labels_that_are_named_are_kept() -> None:
    labels = copy("label:role").body["Labels"]
    assert labels["role"] == V1["Labels"]["role"]
    assert "only1" not in labels
    assert {"role", "only1"} <= set(copy("labels").body["Labels"])


def test_the_label_itself_is_carried() -> None:
    assert copy("user").body["Labels"]["lookout.pin"] == "user"


def test_labels_of_an_earlier_swap_cannot_be_pinned() -> None:
    config = {"Labels": {"lookout.swap.replaces": "x", "lookout.pin": "labels,label:lookout.swap.replaces"}}
    said = overrides(config, {}, (), of({"Name": "/a", "Config": config, "HostConfig": {}}))
    assert "lookout.swap.replaces" not in said["Labels"]


@pytest.mark.parametrize(
    ("label", "kept"),
    [
        ("expose:8080", {"8080/tcp"}),
        ("expose:8080/tcp", {"8080/tcp"}),
        ("expose:9000/UDP", {"9000/udp"}),
        ("expose:9000", set()),
        ("expose", {"8080/tcp", "9000/udp"}),
    ],
)
def test_only_the_ports_that_are_named_stay_exposed(label: str, kept: set[str]) -> None:
    assert set(copy(label).body.get("ExposedPorts") or {}) == kept


def test_a_port_whose_protocol_the_image_left_out_is_found_by_either_name() -> None:
    config: Json = {"ExposedPorts": {"7000": {}}}
    for label in ("expose:7000", "expose:7000/tcp"):
        assert overrides(V1 | config, V1 | config, (), pinned(label, config))["ExposedPorts"] == {"7000": {}}


def test_ports_of_another_containers_network_are_not_exposed_by_a_pin() -> None:
    pins = pinned("expose,expose:8080", NetworkMode="container:" + "ab" * 32)
    assert "ExposedPorts" not in overrides(V1, V1, (), pins)
    assert len(pins.remarks) == 2


@pytest.mark.parametrize(
    ("label", "config", "sent"),
    [
        pytest.param("cmd", {}, {"Cmd": ["cmd1"]}, id="a command"),
        pytest.param(
            "entrypoint", {}, {"Entrypoint": ["/app.sh"], "Cmd": ["cmd1"]}, id="an entrypoint and its command"
        ),
        pytest.param(
            "cmd,entrypoint", {}, {"Entrypoint": ["/app.sh"], "Cmd": ["cmd1"]}, id="both, which is the same"
        ),
        pytest.param(
            "cmd", {"Cmd": None}, {"Entrypoint": ["/app.sh"]}, id="no command, kept by the entrypoint alone"
        ),
        pytest.param(
            "entrypoint", {"Entrypoint": None}, {"Entrypoint": [""], "Cmd": ["cmd1"]}, id="no entrypoint"
        ),
        pytest.param("cmd", {"Entrypoint": None}, {"Cmd": ["cmd1"]}, id="a command without one"),
    ],
)
def test_an_inherited_entrypoint_or_command_that_is_pinned_is_sent(
    label: str, config: Json, sent: Json
) -> None:
    present = V1 | config
    assert command(present, present, pinned(label, config)) == sent


@pytest.mark.parametrize(
    ("label", "config", "sent"),
    [
        ("cmd", {"Entrypoint": []}, {"Entrypoint": [], "Cmd": ["cmd1"]}),
        ("entrypoint", {"Entrypoint": []}, {"Entrypoint": [], "Cmd": ["cmd1"]}),
        ("entrypoint", {"Entrypoint": [], "Cmd": None}, {"Entrypoint": [""]}),
        ("cmd", {"Entrypoint": ["/e"], "Cmd": None}, {"Entrypoint": ["/e"]}),
        ("cmd", {"Entrypoint": ["/e"]}, {"Entrypoint": ["/e"], "Cmd": ["cmd1"]}),
    ],
)
def test_a_pinned_command_stands_beside_an_entrypoint_of_the_user(
    label: str, config: Json, sent: Json
) -> None:
    assert command(V1 | config, V1, pinned(label, config)) == sent


@pytest.mark.parametrize(
    ("word", "field", "meant"),
    [("user", "User", "0"), ("workdir", "WorkingDir", "/"), ("stop-signal", "StopSignal", "SIGTERM")],
)
def test_a_field_that_is_empty_is_pinned_as_what_it_means(word: str, field: str, meant: str) -> None:
    for empty in ({field: ""}, {field: None}):
        assert overrides(V1 | empty, V1 | empty, (), pinned(word, empty))[field] == meant


@pytest.mark.parametrize(
    ("check", "sent"),
    [
        pytest.param(None, {"Test": ["NONE"]}, id="none"),
        pytest.param({"Interval": 5}, {"Test": ["NONE"]}, id="an interval of nothing"),
        pytest.param({"Test": ["NONE"], "Retries": 2}, {"Test": ["NONE"]}, id="switched off"),
        pytest.param(
            {"Test": ["CMD", "x"], "Interval": 5, "Retries": 0},
            {
                "Test": ["CMD", "x"],
                "Interval": 5,
                "Timeout": 30_000_000_000,
                "StartPeriod": 1_000_000,
                "Retries": 3,
            },
            id="the engine's own values are said for what is not set",
        ),
        pytest.param(
            {
                "Test": ["CMD", "x"],
                "Interval": 5,
                "Timeout": 6,
                "StartPeriod": 7,
                "StartInterval": 8,
                "Retries": 9,
            },
            {
                "Test": ["CMD", "x"],
                "Interval": 5,
                "Timeout": 6,
                "StartPeriod": 7,
                "StartInterval": 8,
                "Retries": 9,
            },
            id="all that is set",
        ),
    ],
)
def test_a_pinned_healthcheck_is_sent_whole(check: Json | None, sent: Json) -> None:
    assert healthcheck(check or {}, check or {}, pinned("healthcheck")) == sent


@pytest.mark.parametrize("label", [None, "", " ", ",", " , "])
def test_a_label_without_words_pins_nothing(label: str | None) -> None:
    assert pinned(label) == NO_PINS


def test_words_are_read_without_regard_to_blanks_and_case_but_names_are_not() -> None:
    pins = pinned(" User , STOP-SIGNAL,Env:LEVEL , LABEL: role,, ")
    assert pins.words == {("user", ""), ("stop-signal", ""), ("env", "LEVEL"), ("label", "role")}
    assert pinned("env:level").words == frozenset()


def test_the_key_of_a_label_may_have_a_colon() -> None:
    assert pinned("label:a:b", {"Labels": {"a:b": "1"}}).words == {("label", "a:b")}


@pytest.mark.parametrize(
    "word",
    [
        *("usr", "user:root", "label", "labels:role", "env:", "env: ", "label:", "env:LEVEL=info", ":", ":x"),
        *("expose:", "expose:http", "expose:80/icmp", "expose:80/", "working-dir", "user cmd", "cmd;user"),
    ],
)
def test_a_word_that_means_nothing_refuses_the_copy(word: str) -> None:
    with pytest.raises(CopyRefused) as caught:
        pinned(f"user,{word},cmd")
    said = str(caught.value)
    assert said.startswith(f"the label lookout.pin of api has {word.strip()!a}, ")
    for known in ("stop-signal", "labels", "env:NAME", "label:KEY", "expose:PORT"):
        assert known in said


def test_a_long_word_with_control_characters_does_not_spoil_the_message() -> None:
    with pytest.raises(CopyRefused) as caught:
        pinned("us\x1b[31mer" + "x" * 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_copy_is_refused_for_a_misspelt_pin() -> None:
    with pytest.raises(CopyRefused, match=r"lookout\.pin of plain has 'comand'"):
        copy("user,comand")


def test_a_pin_of_something_that_is_not_there_is_remarked() -> None:
    remarks = copy("env:NOPE,label:nope,expose:1,env:LEVEL,user").remarks
    told = [remark for remark in remarks if "lookout.pin" in remark]
    assert told == [
        "lookout.pin names env:NOPE, of which the container has none",
        "lookout.pin names expose:1/tcp, of which the container has none",
        "lookout.pin names label:nope, of which the container has none",
    ]


def test_a_variable_that_the_user_removed_is_there_to_be_pinned() -> None:
    entries = ["LEVEL", *(entry for entry in V1["Env"] if not entry.startswith("LEVEL"))]
    pins = pinned("env:LEVEL", {"Env": entries})
    assert not pins.remarks
    assert env(entries, V1["Env"], pins) == ["LEVEL"]


@pytest.mark.parametrize("pin", [True, False])
def test_a_pinned_value_is_not_suspected_of_being_left_over(pin: bool) -> None:
    env = [*(e for e in ["VERSION=0", *V1["Env"]] if e != "VERSION=1")]
    label = "org.opencontainers.image.version"
    remarks = copy(f"env:VERSION,label:{label}" if pin else "", Env=env, Labels={label: "0"}).remarks
    suspected = " ".join(remark for remark in remarks if "left by a tool" in remark)
    assert ("VERSION" in suspected, label in suspected) == (not pin, not pin)
