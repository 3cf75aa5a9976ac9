"""What the labels of a container say of a swap."""

import datetime
import json
import math
from itertools import product

import pytest

from lookout.model import Json
from lookout.pair import mark_of
from lookout.ready import Monitor
from lookout.recovery import _age, _longest, _may_be_half_done, _pair

OLD, NEW, LIVE = "a" * 64, "b" * 64, "c" * 64


def new(**labels: str) -> Json:
    said = {f"lookout.swap.{key.replace('_', '-')}": value for key, value in labels.items()}
    return {"Id": NEW, "Name": f"/api.lookout-new.{OLD[:12]}", "Config": {"Labels": said}, "HostConfig": {}}


def test_a_new_container_says_all_that_is_needed() -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 3}
    pair = _pair(new(replaces=OLD, name="api", mode="stop-first", restart=json.dumps(policy), serves="true"))
    assert (pair.name, pair.old_id, pair.new_id, pair.served_id) == ("api", OLD, NEW, OLD)
    assert (pair.policy, pair.serves, pair.stands_in) == (policy, True, False)
    assert pair.new_name == f"api.lookout-new.{OLD[:12]}"


def test_a_stand_in_is_what_comes_back() -> None:
    pair = _pair(new(replaces=OLD, live=LIVE, name="api"))
    assert (pair.old_id, pair.served_id, pair.stands_in) == (OLD, LIVE, True)
    alone = _pair(new(rollback_for=LIVE, name="api"))
    assert (alone.old_id, alone.new_id, alone.served_id) == (NEW, "", LIVE)


def test_an_old_container_whose_new_one_is_gone_says_it_by_its_name() -> None:
    for word, labels in product(("old", "done"), ({}, {"lookout.swap.replaces": "an earlier one"})):
        config = {"Labels": labels}
        found = {"Id": OLD, "Name": f"/api.lookout-{word}.{OLD[:12]}", "Config": config, "HostConfig": {}}
        pair = _pair(found)
        assert (pair.name, pair.old_id, pair.new_id, pair.serves) == ("api", OLD, "", True)


@pytest.mark.parametrize(("parked", "own"), [("no", "unless-stopped"), ("always", "always")])
def test_its_own_restart_policy_is_told_by_the_parked_one_as_far_as_possible(parked: str, own: str) -> None:
    host = {"RestartPolicy": {"Name": parked}}
    found = {"Id": OLD, "Name": f"/api.lookout-old.{OLD[:12]}", "Config": {}, "HostConfig": host}
    assert _pair(found).policy["Name"] == own


def test_a_mode_that_is_not_known_is_left_alone() -> None:
    with pytest.raises(ValueError, match="start-last"):
        _pair(new(replaces=OLD, mode="start-last"))


@pytest.mark.parametrize(
    ("name", "state", "labels", "expected"),
    [
        pytest.param("api", "running", {"replaces": OLD}, True, id="the old one is there"),
        pytest.param("api", "running", {"replaces": "gone"}, False, id="committed"),
        pytest.param("api", "exited", {"replaces": "gone"}, False, id="committed, and stopped by its user"),
        pytest.param("api", "created", {"replaces": "gone", "serves": "true"}, True, id="never started"),
        pytest.param(
            "api", "created", {"replaces": "gone", "serves": "false"}, False, id="not to be started"
        ),
        pytest.param("api", "created", {"replaces": "gone"}, False, id="created by an earlier version"),
        pytest.param(
            "api.lookout-new.aaaaaaaaaaaa", "exited", {"replaces": "gone"}, True, id="not named yet"
        ),
        pytest.param("api", "running", {"rollback-for": "gone"}, False, id="a stand-in that came back"),
        pytest.param("api.lookout-rb.aaaaaaaaaaaa", "created", {"rollback-for": OLD}, True, id="a stand-in"),
        pytest.param(f"api.lookout-old.{'b' * 12}", "exited", {}, True, id="an old one"),
        pytest.param(f"api.lookout-done.{'b' * 12}", "exited", {}, True, id="an old one that is done"),
        pytest.param("api.lookout-old.123456789012", "exited", {}, False, id="a name that somebody chose"),
        pytest.param("api", "running", {}, False, id="any other"),
    ],
)
def test_what_is_worth_a_closer_look(name: str, state: str, labels: dict[str, str], expected: bool) -> None:
    said = {f"lookout.swap.{key}": value for key, value in labels.items()}
    listed = {"Id": NEW, "Names": ["/a/alias", f"/{name}"], "State": state, "Labels": said}
    assert _may_be_half_done(listed, {OLD, NEW}) is expected


def test_how_old_a_new_container_is_and_how_long_its_swap_takes_at_most() -> None:
    created = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=100)
    container = {"Created": created.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"), "Config": {}}
    assert 99 <= _age(container) <= 110
    stops_slowly = {"Config": {"StopTimeout": 30}}
    assert _longest(container, stops_slowly, Monitor(seconds=600, deploy_time=7)) == 30 + 600 + 7
    never = {"Config": {"StopTimeout": -1}}
    assert _longest(container, never, Monitor(seconds=5, deploy_time=7)) == math.inf
    at_once = {"Config": {"StopTimeout": 0}}
    assert _longest(container, at_once, Monitor(seconds=5, deploy_time=7)) == 12
    second = 1_000_000_000
    check = {"Interval": second, "Timeout": second, "Retries": 2, "StartPeriod": 60 * second}
    checked = {"Config": {"Healthcheck": check}}
    assert _longest(checked, None, Monitor(seconds=5, deploy_time=7)) == 10 + 5 + (60 + 2 * 2 + 10)


@pytest.mark.parametrize("policy", ["no", "", "always", "on-failure", "unless-stopped"])
def test_a_marked_policy_is_another_one_with_which_an_engine_leaves_the_container_stopped(
    policy: str,
) -> None:
    marked = mark_of({"Name": policy})["Name"]
    assert marked != policy
    assert marked in ("no", "unless-stopped")
