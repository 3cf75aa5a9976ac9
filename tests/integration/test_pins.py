"""Pins on a real engine: what they keep is there after its merge with the new image, and does the same."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache

import pytest

from lookout.engine import Engine
from lookout.errors import CopyRefused
from lookout.model import Json
from testbed.engine import PrivateEngine
from testbed.images import make_image
from tests.integration.deploys import clone

pytestmark = [pytest.mark.engine, pytest.mark.newest]

#: Two images that differ in every default, and one that has none.
DEFAULTS = {
    number: [
        f"ENV LEVEL={number} SHADE={number} ONLY{number}=x",
        f"USER {100 + int(number)}:{200 + int(number)}",
        f"WORKDIR /srv/{number}",
        f"LABEL role={number} only{number}=x",
        f"EXPOSE 808{number}/tcp 9000/udp",
        f'ENTRYPOINT ["/bin/sh", "-c", "e{number}"]',
        f'CMD ["c{number}"]',
        f"HEALTHCHECK --interval={number}m --timeout={number}s --retries={number} CMD true {number}",
        f"STOPSIGNAL SIGUSR{number}",
    ]
    for number in ("1", "2")
}
PLAIN = ['CMD ["/bin/true"]', "ENV LEVEL=0"]

Copied = Callable[..., Awaitable[Json]]


@cache
def _made(engine: PrivateEngine) -> str:
    name = f"lookout-test-{secrets.token_hex(4)}"
    for number, changes in DEFAULTS.items():
        make_image(engine, f"{name}:{number}", changes=changes)
    make_image(engine, f"{name}:plain", changes=PLAIN)
    return name


@pytest.fixture
def images(engine: PrivateEngine) -> str:
    """A name with the tags 1 and 2, which differ in every default, and plain, which has none."""
    return _made(engine)


@pytest.fixture
async def copied(engine: PrivateEngine, connection: Engine, images: str) -> AsyncIterator[Copied]:
    """Create a container of tag `of` with these options and this pin, and give its copy on tag `to`.

    What is asked for `twice` is a copy on the same tag of a copy.
    """
    run = secrets.token_hex(4)
    label = f"lookout.test={run}"

    async def make(pin: str, *options: str, of: str = "1", to: str = "2", twice: bool = False) -> Json:
        old = engine.docker(
            "create", f"--label={label}", f"--label=lookout.pin={pin}", *options, f"{images}:{of}"
        )
        new = await clone(connection, old, f"{images}:{to}")
        if twice:
            engine.docker("rm", old)
            new = await clone(connection, new.id, f"{images}:{to}")
        return new.inspect

    yield make
    engine.remove_all(label=label)


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_every_field_that_is_pinned_is_the_old_images(
    copied: Copied, connection: Engine, images: str, twice: bool
) -> None:
    config = (
        await copied(
            "user,workdir,stop-signal,entrypoint,cmd,healthcheck,env,labels,expose",
            "--env=MINE=1",
            twice=twice,
        )
    )["Config"]
    one, two = [(await connection.image(f"{images}:{tag}"))["Config"] for tag in ("1", "2")]
    for field in ("User", "WorkingDir", "StopSignal", "Entrypoint", "Cmd"):
        assert config[field] == one[field]
        assert config[field] != two[field]
    for field in ("Test", "Interval", "Timeout", "Retries"):
        assert config["Healthcheck"][field] == one["Healthcheck"][field]
    assert config["Env"][0] == "MINE=1"
    assert set(one["Env"]) | {"ONLY2=x", "MINE=1"} == set(config["Env"])
    assert one["Labels"].items() <= config["Labels"].items()
    assert set(config["ExposedPorts"]) == {"8081/tcp", "8082/tcp", "9000/udp"}


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_what_is_not_named_follows_the_new_image(copied: Copied, twice: bool) -> None:
    pin = "env:LEVEL,label:role,expose:8081,cmd"
    config = (await copied(pin, "--env=MINE=1", twice=twice))["Config"]
    assert config["Env"][:2] == ["MINE=1", "LEVEL=1"]
    assert {"SHADE=2", "ONLY2=x"} <= set(config["Env"])
    assert "ONLY1=x" not in config["Env"]
    assert config["Labels"]["role"] == "1"
    assert config["Labels"]["only2"] == "x"
    assert "only1" not in config["Labels"]
    assert set(config["ExposedPorts"]) == {"8081/tcp", "8082/tcp", "9000/udp"}
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/sh", "-c", "e2"], ["c1"])
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("102:202", "/srv/2", "SIGUSR2")
    assert config["Healthcheck"]["Retries"] == 2
    assert config["Labels"]["lookout.pin"] == pin


@pytest.mark.parametrize(
    ("pin", "entrypoint", "cmd"),
    [
        ("entrypoint", ["/bin/sh", "-c", "e1"], ["c1"]),
        ("cmd", ["/bin/sh", "-c", "e2"], ["c1"]),
        ("user", ["/bin/sh", "-c", "e2"], ["c2"]),
    ],
)
async def test_a_pinned_entrypoint_keeps_its_command(
    copied: Copied, pin: str, entrypoint: list[str], cmd: list[str]
) -> None:
    config = (await copied(pin))["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (entrypoint, cmd)


@pytest.mark.parametrize("pin", ["entrypoint", "cmd"])
async def test_an_empty_command_stays_empty_and_an_entrypoint_that_the_image_has_not_stays_away(
    copied: Copied, pin: str
) -> None:
    bare = (await copied(pin, "--entrypoint=/bin/true"))["Config"]
    assert (bare["Entrypoint"], bare["Cmd"]) == (["/bin/true"], None)
    plain = (await copied("entrypoint", of="plain"))["Config"]
    assert (plain["Entrypoint"], plain["Cmd"]) == (None, ["/bin/true"])


async def test_an_empty_field_is_kept_as_what_it_means(
    copied: Copied, engine: PrivateEngine, images: str
) -> None:
    """The process has the same user, groups, home and folder as it had on the image without defaults."""
    script = ("--entrypoint=/bin/sh", f"{images}:plain", "-c", "id; echo $HOME; pwd")
    without = engine.docker("run", "--rm", *script)

    new = await copied("user,workdir,stop-signal,healthcheck,cmd", of="plain")

    config = new["Config"]
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("0", "/", "SIGTERM")
    assert config["Healthcheck"]["Test"] == ["NONE"]
    options = (f"--user={config['User']}", f"--workdir={config['WorkingDir']}")
    assert engine.docker("run", "--rm", *options, *script) == without
    assert engine.docker("run", "--rm", *script[:1], f"{images}:2", *script[2:]) != without


async def test_a_healthcheck_takes_no_interval_of_the_new_image(copied: Copied) -> None:
    check = (await copied("healthcheck", "--health-cmd=true", of="plain", twice=True))["Config"][
        "Healthcheck"
    ]
    assert check["Test"] == ["CMD-SHELL", "true"]
    assert (check["Interval"], check["Timeout"], check["Retries"]) == (30 * 10**9, 30 * 10**9, 3)


async def test_a_port_is_not_exposed_in_the_network_of_another_container(
    copied: Copied, engine: PrivateEngine, images: str
) -> None:
    name = f"lookout-test-{secrets.token_hex(4)}"
    engine.docker("create", f"--name={name}", f"{images}:1")
    try:
        assert await copied("expose,user", f"--network=container:{name}")
    finally:
        engine.docker("rm", name)


async def test_a_misspelt_pin_refuses_the_copy(copied: Copied) -> None:
    with pytest.raises(CopyRefused, match="'workingdir', which names nothing to keep"):
        await copied("user,workingdir")
