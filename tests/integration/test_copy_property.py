"""A copy is what the user would have got by asking for the same with the new image: for any options.

From the options that hypothesis draws, one container is made on v1 and copied to v2, and another is
made on v2. The engine's inspect of the two must agree in all but what cannot be known; `oracle` says
what that is. Failures that were found this way are kept below, as they were shrunk.
"""

import asyncio
import json
import math
import os
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from lookout.engine import Engine
from lookout.errors import EngineError, EngineUnavailable
from testbed.engine import PrivateEngine
from testbed.images import make_image
from tests.integration.create_options import FILES, GONE, IMAGES, NETWORKS, SOURCE, TARGET, Json, draws
from tests.integration.deploys import Clone, clone, mistold
from tests.integration.oracle import Case, differences, drifted, unfounded, unlike

pytestmark = [pytest.mark.engine, pytest.mark.newest]

#: How many containers are drawn in all, and how many of them at most in one test.
EXAMPLES = int(os.environ.get("LOOKOUT_TEST_EXAMPLES", "40"))
BATCHES = max(4, math.ceil(EXAMPLES / 50))
SMALL = EXAMPLES <= 40
#: A small run draws the same each time. A large one looks for news, unless it is told where.
SEED = int(os.environ.get("LOOKOUT_TEST_SEED", "0" if SMALL else str(secrets.randbits(32))))
#: To shrink a failure takes minutes; a small run shows it as it was drawn.
PHASES = (Phase.reuse, Phase.generate) if SMALL else (Phase.reuse, Phase.generate, Phase.shrink)

REPOSITORY = "lookout-test/app"


class Refused(Exception):
    """The engine does not make a container of these options."""


class Bench:
    """An engine with what the options refer to, and what becomes of options there."""

    def __init__(self, private: PrivateEngine, engine: Engine, names: dict[str, str]) -> None:
        self.engine = engine
        self.seen: Counter[str] = Counter()
        self._private = private
        self._names = names
        self._plain: Json = {}

    @classmethod
    @asynccontextmanager
    async def on(cls, private: PrivateEngine, names: dict[str, str]) -> AsyncIterator["Bench"]:
        async with Engine.connect() as engine:
            bench = cls(private, engine, names)
            async with bench._cleaned() as name:
                plain = await bench._make({}, name, "bare")
                bench._plain = (await engine.container(plain))["HostConfig"]
            yield bench

    async def problems(self, asked: Json) -> list[str]:
        """What is wrong with copies of the container that is asked for; raises Refused if there is none."""
        asked = self._told(asked)
        old, new = asked["images"]
        async with self._cleaned() as name:
            source, twin, same = await self._trio(asked, name)
            if asked["start"]:
                await self._start(source)
            inspect = await self.engine.container(source)

            case = await self._case(asked, inspect, old, new, twin)
            copy = await self._clone(source, _reference(new))
            found = [f"copy: {problem}" for problem in differences(copy.inspect, case)]
            found += [f"model: {problem}" for problem in unfounded(case)]
            found += [f"plan: {field}: {values}" for field, values in mistold(copy, inspect).items()]
            await self.engine.remove(copy.id, volumes=True)

            again = await self._clone(source, _reference(old))
            case = await self._case(asked, inspect, old, old, same)
            found += [f"same image: {problem}" for problem in differences(again.inspect, case)]

            second = await self._clone(again.id, _reference(old))
            third = await self._clone(second.id, _reference(old))
            requests = [again.request, second.request, third.request]
            found += [f"drift: {problem}" for problem in drifted(requests, await self.engine.networks())]
            found += [f"third copy: {problem}" for problem in unlike(again.inspect, third.inspect)]
            if _running(await self.engine.container(source)) != _running(inspect):
                # What ended or restarted meanwhile has not shown one and the same face to all.
                self.seen["unsettled"] += 1
                return []
        return found

    async def _clone(self, container: str, reference: str) -> Clone:
        """The copy of a container; raises Refused where its mounts can never be made, so that it cannot run."""
        try:
            return await clone(self.engine, container, reference)
        except (EngineError, EngineUnavailable):
            try:
                await self.engine.stat(container, "/bin")
            except (EngineError, EngineUnavailable) as exc:
                raise Refused(str(exc)) from exc
            raise

    async def _trio(self, asked: Json, name: str) -> tuple[str, str, str]:
        """The container, the same on the new image, and the same again that never runs."""
        old, new = asked["images"]
        gone = None
        if GONE in json.dumps(asked):
            # Not as a bind: of one that is a path alone, 28.5 cannot start who takes volumes from it.
            host = {"Binds": [f"{GONE}:/b", f"{self._names['$HOST']}/two:/c:ro"]}
            options = {"Volumes": {"/gone": {}}, "HostConfig": host}
            gone = await self._make({"create": options}, GONE, "bare")
        source = await self._make(asked, name, old)
        twin = await self._make(asked, f"{name}-twin", new)
        same = await self._make(asked, f"{name}-same", old) if asked["start"] else source
        if gone:
            await self.engine.remove(gone)
        return source, twin, same

    async def naive_problems(self, asked: Json, copied: Callable[[Json, Json, str], Json]) -> list[str]:
        """What the oracle says about a copy that is made by another rule."""
        asked = self._told(asked)
        old, new = asked["images"]
        async with self._cleaned() as name:
            inspect = await self.engine.container(await self._make(asked, name, old))
            defaults = (await self.engine.image(_reference(old)))["Config"]
            case = await self._case(asked, inspect, old, new, await self._make(asked, f"{name}-twin", new))
            naive = await self.engine.create(f"{name}-naive", copied(inspect, defaults, _reference(new)))
            return differences(await self.engine.container(naive), case)

    async def _case(self, asked: Json, source: Json, old: str, new: str, twin: str) -> Case:
        here = (await self.engine.container(SOURCE))["Mounts"]
        told = json.dumps((asked["create"].get("HostConfig") or {}).get("VolumesFrom"))
        shared = {mount["Destination"] for mount in here if SOURCE in told or self._names["$SOURCE"] in told}
        # It comes last, so what it had at a place is what is there.
        gone = {"/gone", "/b", "/c"} if GONE in told else set()
        return Case(
            options=asked["create"],
            source=source,
            old=(await self.engine.image(_reference(old)))["Config"],
            new=(await self.engine.image(_reference(new)))["Config"],
            twin=await self.engine.container(twin),
            plain=self._plain,
            shared=frozenset(shared - gone),
            gone=frozenset(gone),
            api=await self.engine.api(),
            same_image=old == new,
        )

    def _told(self, asked: Json) -> Json:
        """The options with the names that stand for what only this engine has."""
        text = json.dumps(asked)
        for name, value in self._names.items():
            text = text.replace(name, value)
        told: Json = json.loads(text)
        return told

    async def _make(self, asked: Json, name: str, image: str) -> str:
        """Create a container as the docker command line or compose would."""
        body = {**asked.get("create", {}), "Image": _reference(image)}
        try:
            made = await self.engine.create(name, body)
            for network, endpoint in asked.get("connect", {}).items():
                await self.engine.attach(network, made, endpoint or {})
            for network in asked.get("disconnect", ()):
                if network in (await self.engine.container(made))["NetworkSettings"]["Networks"]:
                    await self.engine.detach(network, made)
        except EngineError as exc:
            raise Refused(exc.message) from exc
        return made

    async def _start(self, container: str) -> None:
        """Not everything that can be created can run; then it is copied as it is."""
        try:
            await self.engine.start(container)
            self.seen["started"] += 1
        except EngineError as exc:
            self.seen["not started"] += 1
            note(f"did not start: {exc.message}")

    @asynccontextmanager
    async def _cleaned(self) -> AsyncIterator[str]:
        """A name; whatever is made meanwhile is removed in the end."""
        before = set(await self.engine.containers(every=True))
        volumes = await self._volumes()
        try:
            yield f"lookout-test-{secrets.token_hex(4)}"
        finally:
            for container in await self.engine.containers(every=True):
                if container not in before:
                    await self.engine.remove(container, volumes=True, force=True)
            for volume in await self._volumes() - volumes:
                await self.engine._api.call("remove volume", f"volumes/{volume}", method="DELETE")

    async def _volumes(self) -> set[str]:
        listed = await self.engine._api.call("list volumes", "volumes")
        return {volume["Name"] for volume in listed["Volumes"] or ()}


def _running(container: Json) -> tuple[str, ...]:
    """In which of its lives a container is."""
    return tuple(container["State"][field] for field in ("Status", "StartedAt", "FinishedAt"))


def _reference(image: str) -> str:
    return f"{REPOSITORY}:{image}"


def _provide(engine: PrivateEngine) -> dict[str, str]:
    """Make what drawn options refer to, and tell what the names in them stand for."""
    folder = engine.directory / "host"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
    for tag, lines in IMAGES.items():
        make_image(engine, _reference(tag), changes=lines, files=FILES)
    networks = {
        name: engine.docker("network", "create", f"--subnet={subnet}.0/24", name)
        for name, subnet in NETWORKS.items()
    }
    target = engine.docker("run", "-d", "--ipc=shareable", f"--name={TARGET}", _reference("bare"))
    volumes = ("--volume=/from", "--volume=lookout-test-source:/a", f"--volume={folder}/one:/c:ro")
    source = engine.docker("create", f"--name={SOURCE}", *volumes, _reference("bare"))
    return {
        "$HOST": str(folder),
        "$TARGET": target,
        "$SOURCE": source,
        "$NET1": networks["net1"],
        "$V1": _reference("v1"),
        "$V2": _reference("v2"),
    }


def _withdraw(engine: PrivateEngine) -> None:
    engine.docker("rm", "--force", "--volumes", TARGET, SOURCE)
    engine.docker("volume", "rm", "lookout-test-source")
    engine.docker("network", "rm", *NETWORKS)
    engine.docker("rmi", *map(_reference, IMAGES))
    shutil.rmtree(engine.directory / "host")


@pytest.fixture(scope="module")
def provided() -> Iterator[dict[PrivateEngine, dict[str, str]]]:
    """Engines that have what drawn options refer to."""
    provided: dict[PrivateEngine, dict[str, str]] = {}
    yield provided
    for engine in provided:
        _withdraw(engine)


@pytest.fixture
def names(engine: PrivateEngine, provided: dict[PrivateEngine, dict[str, str]]) -> dict[str, str]:
    """What the names in drawn options stand for on this engine."""
    if engine not in provided:
        provided[engine] = _provide(engine)
    return provided[engine]


@pytest.fixture
def runner(engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Runner]:
    """One event loop for all examples of a test, because hypothesis itself is not asynchronous."""
    monkeypatch.setenv("DOCKER_HOST", engine.docker_host)
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def bench(engine: PrivateEngine, names: dict[str, str], runner: asyncio.Runner) -> Iterator[Bench]:
    made = Bench.on(engine, names)
    yield runner.run(made.__aenter__())
    runner.run(made.__aexit__(None, None, None))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_copy_is_what_the_same_options_give_on_the_new_image(
    bench: Bench, runner: asyncio.Runner, batch: int
) -> None:
    # Most real copies come from containers that run; but they cost more time than all others.
    start = batch % 4 == 3
    api = runner.run(bench.engine.api())

    @seed(SEED + batch)
    @settings(
        max_examples=math.ceil(EXAMPLES / BATCHES),
        deadline=None,
        database=None if SMALL else DirectoryBasedExampleDatabase(".hypothesis/examples"),
        phases=PHASES,
        print_blob=not SMALL,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(draws(api, start=start))
    def check(asked: Json) -> None:
        try:
            problems = runner.run(bench.problems(asked))
        except Refused as exc:
            bench.seen["refused"] += 1
            note(str(exc))
            assume(False)
        bench.seen["copied"] += 1
        assert not problems, f"LOOKOUT_TEST_SEED={SEED}\n{json.dumps(asked)}\n" + "\n".join(problems)

    check()
    assert bench.seen["refused"] * 10 <= bench.seen["copied"], f"too much is refused: {bench.seen}"
    if start:
        others = bench.seen["not started"] + bench.seen["unsettled"]
        assert bench.seen["started"] >= others, f"too little runs: {bench.seen}"


def _case(host: Json | None = None, **create: Any) -> Json:
    """Options as they are drawn; `host` is HostConfig."""
    return {"images": ["v1", "v2"], "create": {**create, "HostConfig": host or {}}, "start": False}


#: Options whose copy was once wrong, shrunk.
KEPT: dict[str, Json] = {
    "volumes of a container that is gone": _case({"VolumesFrom": [f"{GONE}:ro"]}),
    "volumes of two, of which one is gone": _case({"VolumesFrom": [SOURCE, f"{GONE}:ro"]}),
    "tmpfs over a volume of the old image": _case({"Tmpfs": {"/oldvol": ""}}),
    "tmpfs over a volume of both images": _case({"Tmpfs": {"/data/": "size=1m"}}),
    "tmpfs over a volume of the user's": _case({"Tmpfs": {"/c": ""}}, Volumes={"/c": {}}),
    "volume of another container at a declared path": _case({"VolumesFrom": [SOURCE]}, Volumes={"/from": {}}),
    "folder of another container at a declared path": _case({"VolumesFrom": [SOURCE]}, Volumes={"/c": {}}),
}


@pytest.mark.parametrize("kept", KEPT)
def test_kept_options_that_once_were_copied_wrong(bench: Bench, runner: asyncio.Runner, kept: str) -> None:
    problems = runner.run(bench.problems(KEPT[kept]))
    assert not problems, "\n".join(problems)


def _verbatim(container: Json, defaults: Json, reference: str) -> Json:
    """The copy that everybody writes first: all that inspect shows, sent again."""
    body = {**container["Config"], "Image": reference, "HostConfig": container["HostConfig"]}
    networks = container["NetworkSettings"]["Networks"]
    first = dict(list(networks.items())[:1])
    mode = container["HostConfig"]["NetworkMode"]
    return body if mode == "host" else body | {"NetworkingConfig": {"EndpointsConfig": first}}


def _subtracted(container: Json, defaults: Json, reference: str) -> Json:
    """The copy of watchtower and its forks: what is in the old image as well is left out, as sets."""
    body = _verbatim(container, defaults, reference)
    for field in ("User", "WorkingDir", "Cmd", "Entrypoint", "Healthcheck"):
        if body.get(field) == defaults.get(field):
            body.pop(field, None)
    body["Env"] = [entry for entry in body["Env"] or [] if entry not in defaults["Env"]]
    for field in ("Labels", "Volumes", "ExposedPorts"):
        inherited = defaults[field]
        said = body.get(field) or {}
        body[field] = {key: value for key, value in said.items() if inherited.get(key) != value}
    return body


def _without_hostname(container: Json, defaults: Json, reference: str) -> Json:
    body = _verbatim(container, defaults, reference)
    del body["Hostname"]
    return body


def _pruned(container: Json, defaults: Json, reference: str) -> Json:
    """A copy that takes what is empty for what was not said."""
    body = _verbatim(container, defaults, reference)
    body["HostConfig"] = {field: value for field, value in body["HostConfig"].items() if value}
    return body


Copied = Callable[[Json, Json, str], Json]

#: Copies that are wrong: how they are made, of which options, and where the oracle must see it.
NAIVE: dict[str, tuple[Copied, Json, str]] = {
    "frozen path": (_verbatim, _case(), "Config.Env"),
    "frozen user": (_verbatim, _case(), "Config.User"),
    "frozen folder": (_verbatim, _case(), "Config.WorkingDir"),
    "frozen signal": (_subtracted, _case(), "Config.StopSignal"),
    "frozen label": (_verbatim, _case(), "Config.Labels.org.opencontainers.image.version"),
    "label of the old image only": (_verbatim, _case(), "Config.Labels.only.v1"),
    "lost label of compose": (_subtracted, _case(), "Config.Labels.com.docker.compose.project"),
    "frozen ports": (_verbatim, _case(), "Config.ExposedPorts.8080/tcp"),
    "unpublished port": (
        _subtracted,
        _case(
            {"PortBindings": {"8080/tcp": [{"HostIp": "", "HostPort": "28080"}]}},
            ExposedPorts={"8080/tcp": {}},
        ),
        "Config.ExposedPorts.8080/tcp",
    ),
    "frozen healthcheck": (_verbatim, _case(Healthcheck={"Interval": 3 * 10**9}), "Config.Healthcheck.Test"),
    "frozen health field": (_subtracted, _case(Healthcheck={"Retries": 3}), "Config.Healthcheck.Timeout"),
    "frozen entrypoint": (_verbatim, _case(), "Config.Entrypoint"),
    "frozen command": (_verbatim, _case(), "Config.Cmd"),
    "entrypoint that comes back": (
        _subtracted,
        _case(Entrypoint=[""], Cmd=["/app"]),
        "Config.Entrypoint",
    ),
    "command that comes back": (_subtracted, _case(Entrypoint=["/entry1"]), "Config.Cmd"),
    "variable equal to a default, lost": (
        _subtracted,
        _case(Env=["MINE=1", "MODE=prod", "VERSION=1"]),
        "Config.Env",
    ),
    "id of the old container as hostname": (_verbatim, _case(), "Config.Hostname"),
    "lost hostname": (_without_hostname, _case(Hostname="web"), "Config.Hostname"),
    "fresh volume of the image": (_subtracted, _case(), "Mounts./data.Name"),
    "fresh volume of the user's": (_verbatim, _case(Volumes={"/a": {}}), "Mounts./a.Name"),
    "fresh volume of a bind": (_verbatim, _case({"Binds": ["/a"]}), "Mounts./a.Name"),
    "fresh volume of a mount": (
        _verbatim,
        _case({"Mounts": [{"Type": "volume", "Target": "/a"}]}),
        "Mounts./a.Name",
    ),
    "dropped volume of the old image": (_subtracted, _case(), "Mounts./oldvol"),
    "unmasked paths, masked again": (_pruned, _case({"MaskedPaths": []}), "HostConfig.MaskedPaths"),
    "network left by hand, joined again": (
        _subtracted,
        _case({"NetworkMode": "net1"}) | {"disconnect": ["net1"]},
        "NetworkSettings.Networks.net1",
    ),
    "second network lost": (
        _subtracted,
        _case({"NetworkMode": "net1"}) | {"connect": {"net2": {"Aliases": ["shop"]}}},
        "NetworkSettings.Networks.net2",
    ),
}


@pytest.mark.parametrize("mistake", NAIVE)
def test_the_oracle_sees_what_is_wrong_with(bench: Bench, runner: asyncio.Runner, mistake: str) -> None:
    copied, asked, field = NAIVE[mistake]
    problems = runner.run(bench.naive_problems(asked, copied))
    assert field in {problem.partition(":")[0] for problem in problems}


def test_the_oracle_passes_a_container_that_was_asked_for_again(bench: Bench, runner: asyncio.Runner) -> None:
    """Where nothing is anonymous and nothing equals a default, asking again is the perfect copy."""
    asked = _case(
        {"Memory": 64 << 20, "Binds": ["lookout-test-one:/a"], "NetworkMode": "net1"},
        Env=["MINE=1"],
        Labels={"mine": "1"},
        Volumes={"/a": {}},
    ) | {"images": ["bare", "bare"]}

    def same(container: Json, defaults: Json, reference: str) -> Json:
        return {**asked["create"], "Image": reference}

    assert not runner.run(bench.naive_problems(asked, same))


def test_a_file_that_is_not_there_is_no_failure_of_the_engine(bench: Bench, runner: asyncio.Runner) -> None:
    assert runner.run(bench.engine.stat(SOURCE, "/bin"))
    assert runner.run(bench.engine.stat(SOURCE, "/nowhere")) is None
