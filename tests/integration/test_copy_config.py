"""What a container takes along to another image, and what it gets from it: cases 1 to 15, 18, 19, 34 and 36.

The numbers are those of the table of cases in the specification of the copy.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from lookout.engine import Engine
from lookout.model import Json
from testbed.engine import PrivateEngine
from tests.integration.merging import SECOND, V1, V2, Bench, bench_on, derived, without_swap

pytestmark = [pytest.mark.engine, pytest.mark.newest]

# From this API on the engine keeps the names that it adds itself apart from the user's aliases.
DNS_NAMES = (1, 45)


@pytest.fixture
async def bench(engine: PrivateEngine, connection: Engine) -> AsyncIterator[Bench]:
    async with bench_on(engine, connection) as bench:
        yield bench


# Defaults


async def test_case_01_without_options_every_default_is_the_new_images(bench: Bench) -> None:
    copy = await bench.clone(await bench.create())
    shown = {field: copy.inspect["Config"][field] for field in bench.two}
    assert shown | {"Labels": without_swap(shown["Labels"])} == bench.two
    assert copy.request.keys() & bench.two.keys() == {"Labels"}
    assert without_swap(copy.request["Labels"]) == {}
    assert "Hostname" not in copy.request


async def test_case_01_b_the_copy_is_what_a_container_of_the_new_image_is(bench: Bench) -> None:
    copy = await bench.clone(await bench.create())
    fresh = await bench.inspect(await bench.create(image=V2))
    kept = {"Hostname", "Labels"}
    assert _but(copy.inspect["Config"], kept) == _but(fresh["Config"], kept)
    assert _but(copy.inspect["HostConfig"], {"Binds"}) == _but(fresh["HostConfig"], {"Binds"})
    assert copy.inspect["Image"] == fresh["Image"]
    assert copy.inspect["Config"]["Image"] == V2


# Env


async def test_case_02_variables_of_the_user_come_first_even_where_they_repeat_a_default(
    bench: Bench,
) -> None:
    said = ["X=9", "MODE=prod", "LEVEL=warn"]
    copy = await bench.clone(await bench.create({"Env": said}))
    assert copy.request["Env"] == said
    assert copy.inspect["Config"]["Env"] == [*said, "PATH=/two:/bin", "VERSION=2", "NEWENV=2"]


async def test_case_03_removed_empty_and_repeated_variables_stay_what_they_are(bench: Bench) -> None:
    said = ["LEVEL", "EMPTY=", "D=1", "D=2"]
    old = await bench.create({"Env": said})
    copy = await bench.clone(old)
    assert copy.request["Env"] == said
    assert copy.inspect["Config"]["Env"][:4] == said

    await bench.swap(old, copy.id)
    shown = bench.execute(copy.id, "env").splitlines()
    assert not [line for line in shown if line.startswith("LEVEL")]
    assert "EMPTY=" in shown
    assert bench.execute(copy.id, "sh", "-c", "echo $D") == "2"
    assert {"PATH=/two:/bin", "VERSION=2", "MODE=test", "NEWENV=2"} <= set(shown)


async def test_case_04_a_variable_that_repeats_the_images_first_one_counts_as_inherited(bench: Bench) -> None:
    """There is nothing to say about it in a log: inspect shows the same as without the variable."""
    old = await bench.create({"Env": ["PATH=/one:/bin"]})
    assert (await bench.inspect(old))["Config"]["Env"] == bench.one["Env"]
    copy = await bench.clone(old)
    assert "Env" not in copy.request
    assert copy.inspect["Config"]["Env"] == bench.two["Env"]


# Entrypoint and Cmd

MINE = ["/app", "mine"]
TOOL = ["/tool", "run"]


@pytest.mark.parametrize(
    ("said", "sent", "shown"),
    [
        pytest.param({"Cmd": MINE}, {"Cmd": MINE}, (["/entry2"], MINE), id="case_05-cmd"),
        pytest.param({"Entrypoint": TOOL}, {"Entrypoint": TOOL}, (TOOL, None), id="case_06-entrypoint"),
        pytest.param(
            {"Entrypoint": ["/entry1"]},
            {"Entrypoint": ["/entry1"]},
            (["/entry1"], None),
            id="case_07-entrypoint_that_repeats_the_images",
        ),
        pytest.param(
            {"Entrypoint": [""], "Cmd": MINE},
            {"Entrypoint": [""], "Cmd": MINE},
            (None, MINE),
            id="case_08-cleared_entrypoint",
        ),
        pytest.param(
            {"Entrypoint": [""], "Cmd": ["/app", "cmd1"]},
            {"Entrypoint": [""], "Cmd": ["/app", "cmd1"]},
            (None, ["/app", "cmd1"]),
            id="case_08_b-cleared_entrypoint_and_a_cmd_that_repeats_the_images",
        ),
        pytest.param(
            {"Entrypoint": [], "Cmd": MINE},
            {"Entrypoint": [], "Cmd": MINE},
            ([], MINE),
            id="case_08_c-entrypoint_cleared_by_an_empty_list",
        ),
        pytest.param(
            {"Entrypoint": []},
            {"Entrypoint": []},
            ([], ["/app", "cmd2"]),
            id="case_08_d-entrypoint_cleared_by_an_empty_list_leaves_the_cmd_to_the_image",
        ),
        pytest.param(
            {"Entrypoint": TOOL, "Cmd": ["/app", "cmd1"]},
            {"Entrypoint": TOOL, "Cmd": ["/app", "cmd1"]},
            (TOOL, ["/app", "cmd1"]),
            id="case_09-entrypoint_and_a_cmd_that_repeats_the_images",
        ),
    ],
)
async def test_entrypoint_and_cmd_are_copied_as_the_pair_they_are(
    bench: Bench, said: Json, sent: Json, shown: tuple[Any, Any]
) -> None:
    copy = await bench.clone(await bench.create(said))
    assert {key: copy.request[key] for key in ("Entrypoint", "Cmd") if key in copy.request} == sent
    assert (copy.inspect["Config"]["Entrypoint"], copy.inspect["Config"]["Cmd"]) == shown


# Healthcheck


async def test_case_10_a_healthcheck_that_is_switched_off_stays_off(bench: Bench) -> None:
    copy = await bench.clone(await bench.create({"Healthcheck": {"Test": ["NONE"]}}))
    assert copy.request["Healthcheck"] == {"Test": ["NONE"]}
    assert copy.inspect["Config"]["Healthcheck"]["Test"] == ["NONE"]


async def test_case_11_one_field_of_the_healthcheck_is_the_users_the_others_the_new_images(
    bench: Bench,
) -> None:
    copy = await bench.clone(await bench.create({"Healthcheck": {"Interval": 5 * SECOND}}))
    assert copy.request["Healthcheck"] == {"Interval": 5 * SECOND}
    assert copy.inspect["Config"]["Healthcheck"] == bench.two["Healthcheck"] | {"Interval": 5 * SECOND}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Test", ["CMD", "true"]),
        ("Timeout", 6 * SECOND),
        ("StartPeriod", 7 * SECOND),
        ("StartInterval", 8 * SECOND),
        ("Retries", 9),
    ],
)
async def test_case_11_b_each_field_of_the_healthcheck_is_decided_by_itself(
    bench: Bench, field: str, value: Any
) -> None:
    copy = await bench.clone(await bench.create({"Healthcheck": {field: value}}))
    known = field in bench.one["Healthcheck"]  # an engine that does not know the field forgets it
    assert copy.request.get("Healthcheck", {}) == ({field: value} if known else {})
    assert copy.inspect["Config"]["Healthcheck"] == bench.two["Healthcheck"] | (
        {field: value} if known else {}
    )


# Labels


async def test_case_12_labels_of_the_user_stay_and_those_of_the_old_image_go(bench: Bench) -> None:
    copy = await bench.clone(await bench.create({"Labels": {"role": "mine", "tier": "web", "own": "1"}}))
    assert without_swap(copy.request["Labels"]) == {"role": "mine", "own": "1"}
    assert without_swap(copy.inspect["Config"]["Labels"]) == {
        "role": "mine",  # the user's, over the image's
        "tier": "db",  # repeated the old image's, so it counts as that
        "own": "1",
        "only.in.v2": "yes",
    }


@pytest.mark.parametrize(
    "key",
    [
        "com.docker.compose.project",
        "com.docker.compose.service",
        "com.docker.stack.namespace",
        "com.docker.swarm.node.id",
        "desktop.docker.io/binds/0/Source",
    ],
)
async def test_case_12_b_a_label_by_which_an_orchestrator_knows_its_container_stays_even_if_the_image_has_it(
    bench: Bench, key: str
) -> None:
    image = derived(bench.engine, V1, f"LABEL {key}=shop")
    copy = await bench.clone(await bench.create(image=image))
    assert without_swap(copy.request["Labels"]) == {key: "shop"}
    assert without_swap(copy.inspect["Config"]["Labels"]) == bench.two["Labels"] | {key: "shop"}


async def test_case_12_c_notes_of_an_earlier_swap_do_not_come_along(bench: Bench) -> None:
    left = {"lookout.swap.replaces": "gone", "lookout.swap.name": "x", "lookout.swap.invented": "y"}
    old = await bench.create({"Labels": left | {"lookout.enable": "true"}})
    copy = await bench.clone(old)
    labels = copy.inspect["Config"]["Labels"]
    assert without_swap(labels) == bench.two["Labels"] | {"lookout.enable": "true"}
    assert "lookout.swap.invented" not in labels
    assert labels["lookout.swap.replaces"] == old
    assert labels["lookout.swap.name"] == (await bench.inspect(old))["Name"].lstrip("/")


# Users, folders and signals: equal to the old default is inherited, all else is the user's


@pytest.mark.parametrize(
    ("field", "value"), [("User", "1000:0"), ("WorkingDir", "/tmp"), ("StopSignal", "SIGTERM")]
)
async def test_case_01_c_a_default_that_the_user_has_changed_stays_changed(
    bench: Bench, field: str, value: str
) -> None:
    copy = await bench.clone(await bench.create({field: value}))
    assert copy.request.keys() & {"User", "WorkingDir", "StopSignal"} == {field}
    assert copy.inspect["Config"][field] == value


# Ports


async def test_case_13_a_published_port_stays_published_though_the_new_image_does_not_expose_it(
    bench: Bench,
) -> None:
    old = await bench.run(
        {
            "ExposedPorts": {"8080/tcp": {}},
            "HostConfig": {"PortBindings": {"8080/tcp": [{"HostPort": "8080"}]}},
        }
    )
    copy = await bench.clone(old)
    assert copy.request["ExposedPorts"] == {"8080/tcp": {}}
    assert copy.inspect["Config"]["ExposedPorts"] == {"8080/tcp": {}, "8081/tcp": {}}

    new = await bench.swap(old, copy.id)
    assert _published(new) == {"8080/tcp": {"8080"}}
    assert _page(bench, 8080) == "v2"


async def test_case_14_publishing_all_ports_publishes_those_of_the_new_image(bench: Bench) -> None:
    old = await bench.run({"HostConfig": {"PublishAllPorts": True}})
    assert _published(await bench.inspect(old)).keys() == {"8080/tcp", "9000/udp"}
    copy = await bench.clone(old)
    assert "ExposedPorts" not in copy.request
    assert copy.inspect["Config"]["ExposedPorts"] == {"8081/tcp": {}}
    assert _published(await bench.swap(old, copy.id)).keys() == {"8081/tcp"}


async def test_case_14_b_a_port_that_the_user_exposes_stays_exposed(bench: Bench) -> None:
    copy = await bench.clone(
        await bench.create({"ExposedPorts": {"7000/tcp": {}}, "HostConfig": {"PublishAllPorts": True}})
    )
    assert copy.request["ExposedPorts"] == {"7000/tcp": {}}
    assert copy.inspect["Config"]["ExposedPorts"] == {"7000/tcp": {}, "8081/tcp": {}}


async def test_case_15_a_port_that_was_bound_and_not_exposed_stays_as_unpublished_as_it_was(
    bench: Bench,
) -> None:
    bindings = {"7777/tcp": [{"HostIp": "", "HostPort": "7777"}]}
    old = await bench.run({"HostConfig": {"PortBindings": bindings}})
    before = _published(await bench.inspect(old))
    copy = await bench.clone(old)
    assert "ExposedPorts" not in copy.request
    assert copy.inspect["HostConfig"]["PortBindings"] == bindings
    assert copy.inspect["Config"]["ExposedPorts"] == {"8081/tcp": {}}

    assert before == {}
    assert _published(await bench.swap(old, copy.id)) == {}


# Hostname


async def test_case_18_a_container_without_a_hostname_gets_that_of_its_own_id(bench: Bench) -> None:
    network, _ = bench.network()
    old = await bench.run(
        {
            "HostConfig": {"NetworkMode": network},
            "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": ["shop"]}}},
        }
    )
    # It is there to be copied by mistake:
    assert old[:12] in _names(await bench.inspect(old), network)
    copy = await bench.clone(old)
    assert "Hostname" not in copy.request
    assert copy.request["NetworkingConfig"]["EndpointsConfig"][network]["Aliases"] == ["shop"]
    assert copy.inspect["Config"]["Hostname"] == copy.id[:12]

    new = await bench.swap(old, copy.id)
    assert _names(new, network) >= {"shop", copy.id[:12]}
    assert old[:12] not in _names(new, network)
    assert bench.execute(copy.id, "hostname") == copy.id[:12]


async def test_case_19_a_hostname_and_a_domain_of_the_user_stay(bench: Bench) -> None:
    said = {"Hostname": "h1", "Domainname": "ex.org"}
    old = await bench.create(said)
    copy = await bench.clone(old)
    assert copy.request.items() >= said.items()
    assert copy.inspect["Config"].items() >= said.items()
    await bench.swap(old, copy.id)
    assert bench.execute(copy.id, "cat", "/proc/sys/kernel/hostname") == "h1"
    assert bench.execute(copy.id, "cat", "/proc/sys/kernel/domainname") == "ex.org"


async def test_case_19_b_a_hostname_does_not_become_an_alias(bench: Bench) -> None:
    network, _ = bench.network()
    old = await bench.run({"Hostname": "h1", "HostConfig": {"NetworkMode": network}})
    copy = await bench.clone(old)
    assert "h1" in _names(await bench.inspect(old), network)
    assert copy.request["NetworkingConfig"]["EndpointsConfig"][network] == {}
    assert "h1" in _names(await bench.swap(old, copy.id), network)


# Hidden paths

PATHS = ("MaskedPaths", "ReadonlyPaths")
# The defaults of engine 20.10; later ones hide more.
OF_20_10: Json = {
    "MaskedPaths": [
        "/proc/asound",
        "/proc/acpi",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    ],
    "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
}


async def test_case_34_a_privileged_container_hides_nothing(bench: Bench) -> None:
    copy = await bench.clone(await bench.create({"HostConfig": {"Privileged": True}}))
    assert {path: copy.request["HostConfig"][path] for path in PATHS} == dict.fromkeys(PATHS)
    assert {path: copy.inspect["HostConfig"][path] for path in PATHS} == dict.fromkeys(PATHS)


@pytest.mark.parametrize(
    ("hidden", "readonly"),
    [
        pytest.param([], [], id="case_34_b-none"),
        pytest.param(["/proc/kcore"], ["/proc/sys"], id="case_34_c-few_of_the_defaults"),
        pytest.param(
            [*OF_20_10["MaskedPaths"], "/proc/mine"],
            [*OF_20_10["ReadonlyPaths"], "/proc/mine"],
            id="case_34_d-more_than_the_defaults",
        ),
    ],
)
async def test_hidden_paths_of_the_user_stay(bench: Bench, hidden: list[str], readonly: list[str]) -> None:
    said = {"MaskedPaths": hidden, "ReadonlyPaths": readonly}
    copy = await bench.clone(await bench.create({"HostConfig": said}))
    assert copy.request["HostConfig"].items() >= said.items()
    assert copy.inspect["HostConfig"].items() >= said.items()


@pytest.mark.parametrize(
    "filled_in",
    [
        pytest.param({}, id="case_34_e-by_this_engine"),
        pytest.param(OF_20_10, id="case_34_f-by_an_older_engine"),
    ],
)
async def test_hidden_paths_that_an_engine_has_filled_in_are_left_to_the_engine(
    bench: Bench, filled_in: Json
) -> None:
    fresh = await bench.inspect(await bench.create(image=V2))
    copy = await bench.clone(await bench.create({"HostConfig": filled_in}))
    assert not copy.request["HostConfig"].keys() & set(PATHS)
    for path in PATHS:
        assert copy.inspect["HostConfig"][path] == fresh["HostConfig"][path] != []


# Copies of copies


def _rich(networks: list[str], volume: str) -> Json:
    """A request with something for every rule in it."""
    return {
        "Hostname": "h1",
        "User": "0:0",
        "Env": ["X=9", "MODE=prod", "GONE", "EMPTY="],
        "Cmd": ["/app", "mine"],
        "Labels": {"role": "mine", "com.docker.compose.project": "shop"},
        "ExposedPorts": {"7000/tcp": {}, "8080/tcp": {}},
        "Volumes": {"/anonymous": {}},
        "Healthcheck": {"Interval": 5 * SECOND},
        "StopTimeout": 3,
        "HostConfig": {
            "NetworkMode": networks[0],
            "Binds": [f"{volume}:/named", "/single"],
            "Mounts": [
                {"Type": "volume", "Target": "/nameless"},
                {"Type": "tmpfs", "Target": "/memory", "TmpfsOptions": {"SizeBytes": 1 << 20}},
            ],
            "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}]},
            "RestartPolicy": {"Name": "unless-stopped"},
            "ExtraHosts": ["db:10.0.0.1"],
            "MaskedPaths": ["/proc/kcore"],
        },
        "NetworkingConfig": {
            "EndpointsConfig": {
                networks[0]: {
                    "Aliases": ["shop"],
                    "IPAMConfig": {"IPv4Address": "10.98.36.7"},
                    "MacAddress": "02:11:22:33:44:55",
                }
            }
        },
        "MacAddress": "02:11:22:33:44:55",
    }


async def _rich_container(bench: Bench) -> str:
    networks = [bench.network("--subnet=10.98.36.0/24")[0], bench.network()[0]]
    container = await bench.create(_rich(networks, bench.volume()))
    await bench.connection.attach(networks[1], container, {"Aliases": ["second"]})
    return container


@pytest.mark.parametrize("image", [V1, V2])
async def test_case_36_a_copy_of_a_copy_of_a_copy_is_asked_for_in_the_same_words(
    bench: Bench, image: str
) -> None:
    first = await bench.clone(await _rich_container(bench), image)
    second = await bench.clone(first.id, image)
    third = await bench.clone(second.id, image)
    fourth = await bench.clone(third.id, image)
    if image == V1:
        assert _lasting(second.request) == _lasting(first.request)
    else:  # what v2 adds of its own is a fresh volume of the first copy, and carried by the second
        assert _but_binds(_lasting(second.request)) == _but_binds(_lasting(first.request))
    assert _lasting(third.request) == _lasting(second.request)
    assert _lasting(fourth.request) == _lasting(third.request)
    assert _settings(fourth.inspect) == _settings(third.inspect) == _settings(second.inspect)


async def test_case_36_b_nothing_that_running_adds_is_taken_for_a_setting(bench: Bench) -> None:
    """Addresses, ids and names that the engine gives to a running container must not pile up."""
    current = await _rich_container(bench)
    await bench.connection.start(current)
    requests = []
    for _ in range(3):
        copy = await bench.clone(current, V1)
        requests.append(_lasting(copy.request))
        await bench.swap(current, copy.id)
        await bench.connection.remove(current)
        current = copy.id
    assert requests[0] == requests[1] == requests[2]


def _lasting(request: Json) -> Json:
    """A create request without the notes on the swap."""
    return request | {"Labels": without_swap(request["Labels"])}


def _but_binds(request: Json) -> Json:
    return request | {"HostConfig": _but(request["HostConfig"], {"Binds"})}


def _settings(inspected: Json) -> Json:
    """All that was configured, of what inspect shows."""
    config = inspected["Config"] | {"Labels": without_swap(inspected["Config"]["Labels"])}
    mounts = sorted(inspected["Mounts"], key=lambda mount: str(mount["Destination"]))
    networks = {
        name: {key: endpoint.get(key) for key in ("IPAMConfig", "Links", "DriverOpts", "GwPriority")}
        | {"Aliases": sorted(set(endpoint["Aliases"] or ()) - {inspected["Id"][:12]})}
        for name, endpoint in inspected["NetworkSettings"]["Networks"].items()
    }
    return {
        "Config": config,
        "HostConfig": inspected["HostConfig"],
        "Mounts": mounts,
        "Networks": networks,
        "Image": inspected["Image"],
    }


# What inspect shows


def _but(fields: Json, left_out: set[str]) -> Json:
    return {key: value for key, value in fields.items() if key not in left_out}


def _published(inspected: Json) -> dict[str, set[str]]:
    """The host ports on which each port of a running container is published."""
    ports = inspected["NetworkSettings"]["Ports"]
    return {port: {b["HostPort"] for b in bindings} for port, bindings in ports.items() if bindings}


def _names(inspected: Json, network: str) -> set[str]:
    """All names under which others find the container."""
    endpoint = inspected["NetworkSettings"]["Networks"][network]
    return {*(endpoint.get("Aliases") or []), *(endpoint.get("DNSNames") or [])}


def _page(bench: Bench, port: int) -> str:
    """What a port of the engine's host answers, as soon as it does."""
    command = f"until wget -q -O- http://127.0.0.1:{port}/; do sleep 0.1; done"
    return bench.engine.docker("run", "--rm", "--network=host", "--entrypoint=", V2, "sh", "-c", command)
