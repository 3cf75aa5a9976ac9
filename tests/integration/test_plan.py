"""`lookout plan` on a real engine: what it prints is what the daemon then does, and it changes nothing."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lookout.engine import Engine
from lookout.model import Json, Outcome
from lookout.names import name_of
from lookout.rollout import schedule
from testbed.engine import PrivateEngine
from tests.integration.conftest import AppImage, MakeContainer, MakeDeployer
from tests.integration.deploys import mistold, request_for
from tests.integration.forked import run
from tests.integration.merging import V1, Bench, bench_on
from tests.integration.running import CODE
from tests.integration.watching import volumes

pytestmark = pytest.mark.engine

Lookout = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def lookout(engine: PrivateEngine, tmp_path: Path) -> Lookout:
    """Run the command with nothing configured but where the engine is, from a process that is there already."""

    def lookout(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.defpath, "PYTHONPATH": CODE, "DOCKER_HOST": engine.docker_host}
        ended = run(environment | variables, tmp_path, arguments, timeout=60)
        return subprocess.CompletedProcess(arguments, *ended)

    return lookout


def state(engine: PrivateEngine) -> list[object]:
    """All that the engine holds, and since when it runs."""
    listed = (json.loads(engine.get(path)) for path in ("/images/json", "/networks"))
    return [
        [engine.inspected(container["Id"]) for container in engine.listed()],
        *(sorted(one["Id"] for one in some) for some in listed),
        sorted(volumes(engine)),
    ]


async def test_the_plan_shows_what_is_carried_what_is_new_and_what_is_dropped(
    app_image: AppImage, make_container: MakeContainer, engine: PrivateEngine, lookout: Lookout
) -> None:
    app_image("1", changes=["ENV COLOUR=red", "USER guest", "LABEL made=1", "VOLUME /data"])
    two = app_image("2", changes=["ENV COLOUR=blue", "ENV NEW=x", "VOLUME /new", "LABEL made=2", "EXPOSE 81"])
    name = make_container(
        two.replace(":2", ":1"), "api", "--env=TOKEN=hunter2", "--memory=64m", "--label=team=a"
    )
    before = state(engine)

    shown = lookout("plan", two)

    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines[0] == f"{two}: a deploy would end deployed"
    for expected in (
        'Env ["TOKEN=***"]',
        "Labels team a",
        f"HostConfig Memory {64 << 20}",
        "Env COLOUR red -> blue",
        "Env NEW (none) -> x",
        "User guest -> (none)",
        "Labels made 1 -> 2",
        "ExposedPorts 81/tcp (none) -> yes",
        "Volumes /new (none) -> a new volume",
        "2. inspect",
        "stop " + name,
        f"start {name}",
    ):
        assert any(expected in line for line in lines), expected
    assert any(line.startswith("Hostname ") and "old container's id" in line for line in lines)
    assert "hunter2" not in shown.stdout
    assert state(engine) == before


async def test_the_json_is_the_same_plan(
    app_image: AppImage, make_container: MakeContainer, engine: PrivateEngine, lookout: Lookout
) -> None:
    two = app_image("2", changes=["ENV COLOUR=blue"])
    name = make_container(app_image("1"), "api", "--env=TOKEN=hunter2", "--log-opt=max-size=1m")
    before = state(engine)
    shown = lookout("plan", two, "--json")
    plan = json.loads(shown.stdout)
    (container,) = plan["Containers"]
    assert (plan["Image"], plan["Outcome"], container["Name"]) == (two, "deployed", name)
    assert container["Request"]["Image"] == two
    assert container["Request"]["Env"] == ["TOKEN=***"]
    assert container["Request"]["HostConfig"]["LogConfig"]["Config"] == {"max-size": "***"}
    assert {"Field": "Env COLOUR", "Old": None, "New": "blue"} in container["Changes"]
    assert plan["Steps"][0].startswith(f"create {name}.lookout-new.")
    assert "hunter2" not in shown.stdout
    assert state(engine) == before


async def test_without_the_image_the_plan_says_what_it_cannot_know_and_pull_gets_it(
    app_image: AppImage, make_container: MakeContainer, engine: PrivateEngine, lookout: Lookout
) -> None:
    two = app_image("2", changes=["ENV COLOUR=blue"])
    make_container(app_image("1"), "api", "--label=team=a")
    engine.docker("rmi", two)
    before = state(engine)
    shown = lookout("plan", two)
    assert shown.returncode == 0
    assert "not on this engine yet" in shown.stdout
    assert "team" in shown.stdout
    assert "from the new image" not in shown.stdout
    assert state(engine) == before
    pulled = lookout("plan", two, "--pull")
    assert "COLOUR" in pulled.stdout
    assert engine.docker("images", "-q", two)


async def test_a_tag_that_has_moved_in_the_registry_is_remarked(
    app_image: AppImage, make_container: MakeContainer, engine: PrivateEngine, lookout: Lookout
) -> None:
    make_container(app_image("1"), "api")
    two = app_image("2", files={"/www/index.html": b"first"})
    assert "another image under this tag" not in lookout("plan", two).stdout
    first = engine.docker("image", "inspect", "--format={{.Id}}", two)
    app_image("2", files={"/www/index.html": b"second"})
    engine.docker("tag", first, two)
    assert "another image under this tag" in lookout("plan", two).stdout


async def test_an_image_that_a_deploy_could_not_pull_fails_beforehand(
    app_image: AppImage, make_container: MakeContainer, lookout: Lookout
) -> None:
    one = app_image("1")
    make_container(one, "api")
    missing = lookout("plan", one.replace(":1", ":3"))
    assert missing.returncode == 1
    assert f"cannot pull {one.replace(':1', ':3')}" in missing.stdout
    assert "ImageTag" in missing.stdout


async def test_one_container_is_shown_with_what_must_go_with_it(
    app_image: AppImage, make_container: MakeContainer, lookout: Lookout
) -> None:
    one, two = app_image("1"), app_image("2")
    vpn, alone = make_container(one, "vpn"), make_container(one, "alone")
    child = make_container(one, "child", f"--network=container:{vpn}", "--env=PORT=8090")
    shown = json.loads(lookout("plan", two, "--container", child, "--json").stdout)
    assert [container["Name"] for container in shown["Containers"]] == [vpn, child]
    same = json.loads(lookout("plan", "--container", alone, "--json").stdout)
    assert (same["Image"], same["Outcome"], same["Unchanged"]) == (one, "unchanged", [alone])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "say IMAGE:TAG, or --container NAME"),
        (("127.0.0.1:5000/acme/api",), 2, "is not an image with a tag"),
        (("a:b:c",), 2, "is not an image with a tag"),
        (("--container", "lookout-test-nobody"), 1, "lookout-test-nobody is not on this engine"),
        (("lookout-test/nobody:1",), 1, "not_here"),
    ],
)
async def test_what_cannot_be_planned_is_said_in_a_line(
    lookout: Lookout, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = lookout("plan", *arguments)
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_container_that_was_created_from_an_image_id_needs_a_tag_to_plan_for(
    app_image: AppImage, make_container: MakeContainer, engine: PrivateEngine, lookout: Lookout
) -> None:
    image = engine.docker("image", "inspect", "--format={{.Id}}", app_image("1"))
    name = make_container(image.removeprefix("sha256:")[:12], "api")
    ended = lookout("plan", "--container", name)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "was not created from a tag" in ended.stderr


def test_a_reader_that_goes_away_is_no_error_of_lookouts(
    app_image: AppImage, make_container: MakeContainer, engine: PrivateEngine, tmp_path: Path
) -> None:
    make_container(app_image("1"), "api")
    command = f"{sys.executable} -m lookout plan --json {app_image('2')} | true"
    environment = {"PATH": os.defpath, "DOCKER_HOST": engine.docker_host}
    ended = subprocess.run(
        ["sh", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""


async def test_a_stopped_dependent_that_is_left_alone_is_named(
    app_image: AppImage, make_container: MakeContainer, engine: PrivateEngine, lookout: Lookout
) -> None:
    vpn = make_container(app_image("1"), "vpn")
    options = (f"--network=container:{vpn}", "--env=PORT=8090", "--label=lookout.enable=false")
    engine.docker("tag", app_image("1"), "lookout-test/own:1")
    job = make_container("lookout-test/own:1", "job", *options)
    engine.docker("stop", "--time=0", job)
    assert f"{job} depends on it, is stopped, and stays behind" in lookout("plan", app_image("2")).stdout


async def test_a_deploy_that_would_be_refused_or_ignored_says_why(
    app_image: AppImage, make_container: MakeContainer, lookout: Lookout
) -> None:
    two = app_image("2")
    name = make_container(app_image("1"), "api", "--label=lookout.pin=usr")
    refused = lookout("plan", two)
    assert refused.returncode == 1
    assert "would end failed" in refused.stdout
    assert "'usr'" in refused.stdout
    ignored = lookout("plan", two, RequireLabel="true")
    assert ignored.returncode == 0
    assert f"{name} is not labelled lookout.enable=true" in ignored.stdout


async def test_an_engine_that_is_away_is_a_line_and_no_queue_is_needed(lookout: Lookout) -> None:
    away = lookout("plan", "acme/api:1", DOCKER_HOST="tcp://127.0.0.1:9")
    assert away.returncode == 1
    assert away.stderr.startswith("lookout: the engine did not answer")
    wrong = lookout("plan", "acme/api:1", MonitorSeconds="soon")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == [
        line for line in wrong.stderr.splitlines() if "MonitorSeconds" in line
    ]


# The steps


class Recorder:
    """The engine's own connection, which also notes each call that changes something, in the words of a plan."""

    NOTED: ClassVar = {
        "create": "create {0} from {image}",
        "attach": "connect {1} to network {0}",
        "detach": "disconnect {1} from network {0}",
        "copy_files": "copy {2} from {0} to {1}",
        "set_restart_policy": "set the restart policy of {0} to {policy}",
        "stop": "stop {0}",
        "rename": "rename {0} to {1}",
        "start": "start {0}",
        "remove": "remove {0}",
    }

    def __init__(self, engine: Engine) -> None:
        self.noted: list[str] = []
        self._engine = engine

    def __getattr__(self, call: str) -> Any:
        method = getattr(self._engine, call)
        return self._noting(call, method) if call in self.NOTED else method

    def _noting(self, call: str, method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        async def run(*arguments: Any, **options: Any) -> Any:
            words = [await self._name(word) if isinstance(word, str) else "" for word in arguments]
            data = next((argument for argument in arguments if isinstance(argument, dict)), {})
            line = self.NOTED[call].format(*words, image=data.get("Image"), policy=data.get("Name"))
            answer = await method(*arguments, **options)
            self.noted.append(line)
            return answer

        return run

    async def _name(self, word: str) -> str:
        try:
            return name_of(await self._engine.container(word)) if len(word) == 64 else word
        except Exception:  # noqa: BLE001  not a container's id
            return word


async def test_the_steps_of_a_plan_are_what_the_engine_is_asked_for(
    app_image: AppImage, make_container: MakeContainer, make_deployer: MakeDeployer, engine: PrivateEngine
) -> None:
    one, two = app_image("1"), app_image("2")
    network = engine.docker("network", "create", f"lookout-test-{os.urandom(4).hex()}")
    vpn = make_container(one, "vpn", "--restart=always")
    engine.docker("network", "connect", network, vpn)
    engine.inside(vpn, "sh", "-c", "mkdir -p /run/secrets && echo hunter2 > /run/secrets/token")
    engine.docker("tag", one, "lookout-test/own:1")
    child = make_container("lookout-test/own:1", "child", f"--network=container:{vpn}", "--env=PORT=8090")
    make_container("lookout-test/own:1", "web", f"--link={vpn}:vpn")
    stopped = make_container("lookout-test/own:1", "job", f"--network=container:{vpn}", "--env=PORT=8091")
    engine.docker("stop", "--time=0", stopped)

    deployer = make_deployer()
    planner = deployer._planner
    targets = await planner.find(request_for(two).image.name)
    plan = await planner.plan(targets, request_for(two).image, await planner._engine.image(two))
    (group,) = plan.groups
    assert group[0].name == vpn

    deployer._engine = recorder = Recorder(deployer._engine)  # type: ignore[assignment]
    report = await deployer.deploy(request_for(two))

    assert report.outcome is Outcome.DEPLOYED
    planned = [step for step in schedule(plan.groups) if not step.startswith(("inspect", "wait", "see"))]
    assert recorder.noted[: -len(group)] == planned[: -len(group)]
    assert {*recorder.noted[-len(group) :]} == {*planned[-len(group) :]}  # removed side by side
    assert f"start {child}" in recorder.noted
    assert f"start {stopped}" not in recorder.noted
    engine.docker("rm", "-f", "-v", vpn)
    engine.docker("network", "rm", network)


# What comes from the new image


@pytest.fixture
async def bench(engine: PrivateEngine, connection: Engine) -> AsyncIterator[Bench]:
    async with bench_on(engine, connection) as bench:
        yield bench


SAID: dict[str, Json] = {
    "nothing": {},
    "variables": {"Env": ["LEVEL", "X=1", "VERSION=1"]},
    "a command": {"Cmd": ["/app", "mine"]},
    "an entrypoint": {"Entrypoint": ["/bin/env"]},
    "no entrypoint": {"Entrypoint": [""], "Cmd": ["/app"]},
    "an empty entrypoint": {"Entrypoint": []},
    "a part of the health check": {"Healthcheck": {"Interval": 5 * 10**9}},
    "no health check": {"Healthcheck": {"Test": ["NONE"]}},
    "the rest": {
        "User": "root",
        "WorkingDir": "/tmp",
        "StopSignal": "SIGUSR1",
        "Labels": {"role": "mine", "x": "y"},
        "ExposedPorts": {"81/tcp": {}},
    },
}


@pytest.mark.newest
@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
async def test_what_the_plan_says_of_the_new_image_is_what_the_engine_makes_of_it(
    bench: Bench, said: Json
) -> None:
    old = await bench.create(said)
    copy = await bench.clone(old)
    assert not mistold(copy, await bench.inspect(old))
    volumes = {change.field for change in copy.plan.changes if change.field.startswith("Volumes")}
    assert volumes == {"Volumes /newvol"}
    again = await bench.clone(old, V1)
    assert not again.plan.changes


async def test_a_plan_while_a_deploy_runs_disturbs_nothing(
    app_image: AppImage, make_container: MakeContainer, make_deployer: MakeDeployer, lookout: Lookout
) -> None:
    two = app_image("2")
    make_container(app_image("1"), "api")
    deploying = asyncio.create_task(make_deployer(monitor=2).deploy(request_for(two)))
    while not deploying.done():
        shown = await asyncio.to_thread(lookout, "plan", two)
        assert "Traceback" not in shown.stderr
    assert (await deploying).outcome is Outcome.DEPLOYED
