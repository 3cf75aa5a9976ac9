"""What a container has written outlives it: every kind of volume, through good and bad deploys."""

import io
import re
import secrets
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from lookout.engine import Engine
from lookout.model import Json, Outcome
from testbed.engine import DockerFailed, PrivateEngine
from testbed.images import make_image
from tests.integration.conftest import AppImage, Deploy, Inspect, MakeContainer
from tests.integration.deploys import clone, leftovers
from tests.integration.queues import said
from tests.integration.watching import Watch, exists, volumes

pytestmark = pytest.mark.engine

VOLUME_FOLDER = re.compile(r".*/volumes/([^/]+)/_data")

MakeRaw = Callable[..., Awaitable[str]]


@pytest.fixture(autouse=True)
def no_volumes_left(engine: PrivateEngine) -> Iterator[None]:
    """Volumes that a deploy has carried are named, and no container takes them along when it goes."""
    before = volumes(engine)
    yield
    for made in volumes(engine) - before:
        engine.delete(f"/volumes/{made}")


@pytest.fixture
def make_volume(engine: PrivateEngine) -> Callable[..., str]:
    """Make a volume and return its name: `make_volume("--opt=type=tmpfs")`."""
    return lambda *arguments: engine.docker(
        "volume", "create", *arguments, f"lookout-test-{secrets.token_hex(4)}"
    )


@pytest.fixture
async def make_raw(engine: PrivateEngine, connection: Engine) -> AsyncIterator[MakeRaw]:
    """Run a container by the API, for what no command line asks for: `make_raw(image, "web", HostConfig={})`."""
    run = f"lookout-test-{secrets.token_hex(4)}"

    async def make(image: str, suffix: str, **body: Any) -> str:
        name = f"{run}-{suffix}"
        await connection.start(await connection.create(name, {"Image": image, **body}))
        return name

    yield make
    engine.remove_all(name=run)


@pytest.fixture
def tool_image(engine: PrivateEngine) -> str:
    """An image that no test deploys, of which containers share their volumes."""
    reference = f"lookout-test-{secrets.token_hex(4)}/tool:1"
    make_image(engine, reference, changes=["VOLUME /from"])
    return reference


def write(engine: PrivateEngine, container: str, *folders: str) -> None:
    """A file into each of these folders, which says where it was written."""
    script = 'for folder in "$@"; do echo "$folder" > "$folder/file" || exit 1; done'
    engine.inside(container, "sh", "-ec", script, "sh", *folders)


def read(engine: PrivateEngine, container: str, *folders: str) -> list[str]:
    """What those files say now; nothing where there is none."""
    script = 'for folder in "$@"; do cat "$folder/file" || echo lost; done'
    return engine.inside(container, "sh", "-c", script, "sh", *folders).split()


def names(container: Json) -> dict[str, str]:
    """Where which volume, or folder of the host, is mounted.

    Newer engines leave the name out of what was bound as a path alone; the volume's folder has it.
    """
    return {
        mount["Destination"].rstrip("/"): mount.get("Name") or VOLUME_FOLDER.sub(r"\1", mount["Source"])
        for mount in container["Mounts"]
    }


def remarks(logs: list[EventDict]) -> str:
    return "\n".join(event["remark"] for event in said(logs, "remark"))


# Every kind of volume


ANONYMOUS = ("/data", "/anon", "/slash", "/mounted", "/single", "/lone")
FOLDERS = (
    *ANONYMOUS,
    *("/named", "/long", "/host", "/driver", "/inline", "/from", "/from-named"),
    *("/outer", "/outer/inner", "/host/nested"),
)
READ_ONLY = "/fixed"
ONE = ("VOLUME /data",)
TWO = ("VOLUME /data", "VOLUME /newvol")


class Everything:
    """A container with every kind of volume, a file in each, and the container it has some of them from."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source


@pytest.fixture
async def everything(
    app_image: AppImage,
    make_container: MakeContainer,
    make_raw: MakeRaw,
    make_volume: Callable[..., str],
    tool_image: str,
    tmp_path: Path,
    engine: PrivateEngine,
) -> Everything:
    for folder in ("host", "driver", "inline"):
        (tmp_path / folder).mkdir()
    bound = ("--opt=type=none", "--opt=o=bind")
    driver = make_volume("--driver=local", *bound, f"--opt=device={tmp_path}/driver")
    fixed = make_volume()
    source = make_container(tool_image, "source", f"--volume={make_volume()}:/from-named")
    write(engine, make_container(tool_image, "writer", f"--volume={fixed}:{READ_ONLY}"), READ_ONLY)
    inline = {"type": "none", "o": "bind", "device": f"{tmp_path}/inline"}
    name = await make_raw(
        app_image("1", changes=ONE),
        "api",
        # `-v /anon` and `-v /slash/` of the command line; the image has /data.
        Volumes={"/anon": {}, "/slash/": {}, "/host/nested": {}},
        HostConfig={
            "RestartPolicy": {"Name": "always"},
            "Binds": [
                *("/single", "/lone/"),
                *(f"{make_volume()}:/named", f"{fixed}:{READ_ONLY}:ro", f"{tmp_path}/host:/host"),
                *(f"{make_volume()}:/outer/", f"{make_volume()}:/outer/inner"),
            ],
            "Mounts": [
                {"Type": "volume", "Target": "/mounted"},
                {"Type": "volume", "Source": make_volume(), "Target": "/long"},
                {"Type": "volume", "Source": driver, "Target": "/driver"},
                {
                    "Type": "volume",
                    "Target": "/inline",
                    "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": inline}},
                },
            ],
            "VolumesFrom": [source],
            "Tmpfs": {"/scratch": ""},
        },
    )
    write(engine, name, *FOLDERS)
    return Everything(name, source)


@pytest.mark.newest
async def test_case_28_files_in_every_kind_of_volume_are_there_after_a_deploy_and_the_next(
    everything: Everything,
    app_image: AppImage,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    connection: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the new container is started anew, and when all is gone that it had its volumes from."""
    removed, remove = [], connection.remove

    async def watched(container: str, **how: bool) -> None:
        removed.append((container, how.get("volumes", False)))
        await remove(container, **how)

    monkeypatch.setattr(connection, "remove", watched)
    name = everything.name
    old, before = inspect(name), volumes(engine)
    assert set(names(old)) == {*FOLDERS, READ_ONLY}
    first = old
    for tag in ("2", "3"):
        old = inspect(name)
        assert (await deploy(app_image(tag, changes=TWO))).outcome is Outcome.DEPLOYED
        new = inspect(name)
        assert read(engine, name, *FOLDERS, READ_ONLY) == [*FOLDERS, READ_ONLY]
        assert {path: v for path, v in names(new).items() if path != "/newvol"} == names(first)
        assert not exists(engine, old["Id"])
        assert removed[-1] == (old["Id"], False), "removed with its volumes"
        assert before < volumes(engine), "a volume is lost"
        assert len(volumes(engine) - before) == 1, "the new image's own volume, and no other"
        with pytest.raises(DockerFailed, match="Read-only"):
            write(engine, name, READ_ONLY)
        with pytest.raises(DockerFailed):
            engine.inside(name, "ls", "/scratch/file")

    engine.docker("rm", "--force", "--volumes", everything.source)
    engine.docker("restart", name)
    assert read(engine, name, *FOLDERS, READ_ONLY) == [*FOLDERS, READ_ONLY]
    assert (await deploy(app_image("4", changes=TWO))).outcome is Outcome.DEPLOYED
    assert read(engine, name, *FOLDERS, READ_ONLY) == [*FOLDERS, READ_ONLY]


@pytest.mark.parametrize("command", ["/nonexistent", "false"], ids=["does not start", "exits at once"])
async def test_case_29_files_in_every_kind_of_volume_are_there_after_a_rollback(
    everything: Everything,
    app_image: AppImage,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    command: str,
) -> None:
    """And of the new container's volumes only those go that nobody else had."""
    name = everything.name
    old, before, watch = inspect(name), volumes(engine), Watch(engine)
    bad = app_image("bad", changes=[*TWO, f'CMD ["{command}"]'])

    assert (await deploy(bad)).outcome is Outcome.ROLLED_BACK

    back = inspect(name)
    assert (back["Id"], back["State"]["Running"]) == (old["Id"], True)
    assert read(engine, name, *FOLDERS, READ_ONLY) == [*FOLDERS, READ_ONLY]
    assert names(back) == names(old)
    assert volumes(engine) == before
    fresh = watch.volumes("create")
    assert len(fresh - before) == 1, "the new image's own volume was made"
    assert watch.volumes("destroy") == fresh - before
    assert not leftovers(engine)
    # After the rollback as before it: the next deploy is good, and nothing is missing.
    assert (await deploy(app_image("2", changes=TWO))).outcome is Outcome.DEPLOYED
    assert not exists(engine, old["Id"])
    assert read(engine, name, *FOLDERS, READ_ONLY) == [*FOLDERS, READ_ONLY]
    assert before < volumes(engine)


async def test_case_30_a_volume_that_the_new_image_no_longer_declares_stays_mounted_and_is_noted(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    name = make_container(app_image("1", changes=["VOLUME /oldvol", "VOLUME /data"]), "api")
    write(engine, name, "/oldvol", "/data")
    old = inspect(name)
    for tag in ("2", "3"):
        assert (await deploy(app_image(tag, changes=["VOLUME /data"]))).outcome is Outcome.DEPLOYED
        assert names(inspect(name)) == names(old)
        assert read(engine, name, "/oldvol", "/data") == ["/oldvol", "/data"]
    noted = [line for line in remarks(logs).splitlines() if "/oldvol" in line]
    assert noted == ["the new image declares no volume at /oldvol; the old one stays mounted there"]


async def test_a_volume_that_is_empty_is_not_filled_by_an_image_that_is_no_good(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    """To create a container is enough for the engine to write its image's files into an empty volume."""
    name = make_container(
        app_image("1", changes=["VOLUME /data"]), "api", "--volume=/anon", "--mount=type=volume,dst=/mounted"
    )
    places = ("/data", "/anon", "/mounted")
    engine.inside(name, "chown", "1000:1000", *places)
    files = {f"{place}/of-the-image": b"new" for place in places}
    bad = app_image("bad", files=files, changes=['CMD ["false"]', "VOLUME /data"])
    assert (await deploy(bad)).outcome is Outcome.ROLLED_BACK
    assert engine.inside(name, "stat", "-c", "%u:%g", *places).split() == ["1000:1000"] * 3
    assert not [file for place in places for file in engine.inside(name, "ls", place).split()]


async def test_a_volume_in_memory_is_as_empty_after_a_deploy_as_after_a_restart_and_comes_along(
    app_image: AppImage,
    make_container: MakeContainer,
    make_volume: Callable[..., str],
    tool_image: str,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """The engine unmounts a tmpfs volume with the last container that runs on it; a stop is that for one."""
    memory = ("--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=1m")
    lone, shared = make_volume(*memory), make_volume(*memory)
    mounts = (f"--volume={lone}:/lone", f"--volume={shared}:/shared")
    name = make_container(app_image("1"), "api", *mounts)
    make_container(tool_image, "peer", f"--volume={shared}:/shared")
    write(engine, name, "/lone", "/shared")
    engine.docker("restart", "--time=5", name)
    assert read(engine, name, "/lone", "/shared") == ["lost", "/shared"]
    write(engine, name, "/lone")
    before = names(inspect(name))

    assert (await deploy(app_image("2"))).outcome is Outcome.DEPLOYED

    assert read(engine, name, "/lone", "/shared") == ["lost", "/shared"]
    assert names(inspect(name)) == before
    assert "size=1024k" in engine.inside(name, "mount")


# Volumes of another container


@pytest.mark.newest
async def test_case_32_volumes_from_a_container_follow_it_and_stay_when_it_is_gone(
    app_image: AppImage,
    make_container: MakeContainer,
    make_volume: Callable[..., str],
    connection: Engine,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("/host\n")
    places = ("/data", "/named", "/host")
    dependent = f"lookout-test-{secrets.token_hex(4)}/dependent"
    for tag in ("1", "2"):
        make_image(engine, f"{dependent}:{tag}")
    named = make_volume()
    source = make_container(
        app_image("1", changes=["VOLUME /data"]),
        "source",
        *(f"--volume={named}:/named", f"--volume={tmp_path}:/host"),
    )
    write(engine, source, "/data", "/named")
    by_name = make_container(f"{dependent}:1", "by-name", f"--volumes-from={source}:ro")
    by_id = make_container(f"{dependent}:1", "by-id", f"--volumes-from={inspect(source)['Id']}:ro")
    mounted = names(inspect(by_name))
    assert set(mounted) == set(places)
    data = mounted["/data"]

    async def copied(container: str) -> tuple[Json, list[str]]:
        """The copy's request and what it reads, and that it cannot write."""
        copy = await clone(connection, container, f"{dependent}:2")
        try:
            engine.docker("start", copy.id)
            assert names(copy.inspect) == mounted
            assert {mount["RW"] for mount in copy.inspect["Mounts"]} == {False}
            for place in places:
                with pytest.raises(DockerFailed, match="Read-only"):
                    write(engine, copy.id, place)
            return copy.request["HostConfig"], read(engine, copy.id, *places)
        finally:
            engine.docker("rm", "-f", copy.id)

    expanded = {f"{data}:/data:ro,nocopy", f"{named}:/named:ro,nocopy", f"{tmp_path}:/host:ro"}

    host, files = await copied(by_name)
    assert (host["VolumesFrom"], host.get("Binds") or [], files) == ([f"{source}:ro"], [], [*places])

    first = inspect(source)["Id"]
    assert (await deploy(app_image("2", changes=["VOLUME /data"]))).outcome is Outcome.DEPLOYED
    assert inspect(source)["Id"] != first
    for container in (by_name, by_id):
        assert read(engine, container, *places) == [*places]
        assert inspect(container)["State"]["Running"]
    host, files = await copied(by_name)
    assert (host["VolumesFrom"], host.get("Binds") or [], files) == ([f"{source}:ro"], [], [*places])
    host, files = await copied(by_id)
    assert (host.get("VolumesFrom") or [], set(host["Binds"]), files) == ([], expanded, [*places])

    engine.docker("rm", "--force", "--volumes", source)
    host, files = await copied(by_name)
    assert (host.get("VolumesFrom") or [], set(host["Binds"]), files) == ([], expanded, [*places])


async def test_containers_of_one_image_that_share_volumes_are_deployed_together(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
) -> None:
    """Each is planned before the first is replaced; what one has from another must last beyond both."""
    one = app_image("1", changes=["VOLUME /data"])
    source = make_container(one, "b-source")
    by_name = make_container(one, "a-by-name", f"--volumes-from={source}")
    by_id = make_container(one, "c-by-id", f"--volumes-from={inspect(source)['Id']}:ro")
    write(engine, source, "/data")
    volume = names(inspect(source))
    for tag in ("2", "3"):
        report = await deploy(app_image(tag, changes=["VOLUME /data"]))
        assert (report.outcome, set(report.containers)) == (Outcome.DEPLOYED, {source, by_name, by_id})
        for container in (source, by_name, by_id):
            assert names(inspect(container)) == volume
            assert read(engine, container, "/data") == ["/data"]
        with pytest.raises(DockerFailed, match="Read-only"):
            write(engine, by_id, "/data")


# Files of the container's own layer


def archive(path: str, content: bytes) -> bytes:
    """As compose puts an inline secret: for one user alone, with the folders above it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o440, 1000, 1000
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


async def test_case_50_a_secret_that_was_put_by_archive_is_present_in_the_new_container(
    app_image: AppImage,
    make_container: MakeContainer,
    deploy: Deploy,
    inspect: Inspect,
    engine: PrivateEngine,
    logs: list[EventDict],
) -> None:
    """Before its first process runs, with owner and mode, again and again; what else was written is not."""
    name = make_container(app_image("1"), "api", "--label=com.docker.compose.project=shop")
    engine.docker("cp", "-", f"{name}:/", stdin=archive("/run/secrets/token", b"hunter2"))
    engine.docker("cp", "-", f"{name}:/", stdin=archive("/run/secrets/deep/key", b"hunter3"))
    engine.docker("cp", "-", f"{name}:/", stdin=archive("/app.conf", b"inline"))
    engine.inside(name, "touch", "/of-the-old-layer")
    files = ("/run/secrets/token", "/run/secrets/deep/key")
    script = f"#!/bin/sh\nstat -c '%a %u:%g' {' '.join(files)} > /seen && exec /app\n".encode()
    for tag in ("2", "3"):
        old = inspect(name)["Id"]
        image = app_image(tag, files={"/first": script}, changes=['CMD ["/first"]'])
        assert (await deploy(image)).outcome is Outcome.DEPLOYED
        assert inspect(name)["Id"] != old
        assert engine.inside(name, "cat", "/seen").splitlines() == ["440 1000:1000"] * 2
        assert engine.inside(name, "cat", *files) == "hunter2hunter3"
        with pytest.raises(DockerFailed):
            engine.inside(name, "ls", "/of-the-old-layer")
    assert "/app.conf is not copied; if it is an inline config" in remarks(logs)
    assert "hunter" not in str(logs)


async def test_case_50_a_secret_is_there_again_after_a_rollback(
    app_image: AppImage, make_container: MakeContainer, deploy: Deploy, engine: PrivateEngine
) -> None:
    name = make_container(app_image("1"), "api")
    engine.docker("cp", "-", f"{name}:/", stdin=archive("/run/secrets/token", b"hunter2"))
    assert (await deploy(app_image("2", changes=['CMD ["false"]']))).outcome is Outcome.ROLLED_BACK
    assert engine.inside(name, "cat", "/run/secrets/token") == "hunter2"
