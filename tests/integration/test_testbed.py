"""The test bed keeps its own promises, else no other test here means anything."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import botocore.session
import pytest
from botocore.exceptions import ClientError

from testbed import debian, module
from testbed.engine import DockerFailed, PrivateEngine, version
from testbed.faultproxy import FaultProxy
from testbed.images import make_image
from testbed.sandbox import CGROUPS, Sandbox
from testbed.sqs import LocalSqs
from tests.integration import conftest
from tests.integration.hosts import FLAVOURS

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.engine

RECEIVE_ONLY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sqs:ReceiveMessage", "Resource": "*"}],
}


def wait_until(condition: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)


def run_python(code: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **module.ENVIRONMENT, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def processes_of(name: str) -> list[Path]:
    """Everything that runs with this text in its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name.encode() in path.read_bytes():
                found.append(path)
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_an_engine_dies_with_a_maker_that_is_killed(engine: PrivateEngine) -> None:
    maker = run_python(
        "import signal\n"
        "from testbed.engine import PrivateEngine\n"
        "engine = PrivateEngine()\n"
        "engine.start()\n"
        "print(engine.directory.name, flush=True)\n"
        "signal.pause()"
    )
    assert maker.stdout
    name = maker.stdout.readline().strip()
    assert processes_of(name)

    maker.kill()
    maker.communicate()

    wait_until(lambda: not processes_of(name))
    with Sandbox():
        assert not (engine.directory.parent / name).exists()
        assert not [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]


@pytest.mark.timeout(240)
def test_an_unpack_that_was_killed_is_done_anew(
    engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKOUT_CACHE", str(tmp_path))
    monkeypatch.setitem(debian.PACKAGES, "bookworm", ("docker.io", "tini"))
    unpack = "debian.PACKAGES['bookworm'] = ('docker.io', 'tini')\ndebian.unpacked()"
    with run_python(f"from testbed import debian\n{unpack}") as first:
        # The packages come from Debian's mirror.
        wait_until(lambda: bool([*tmp_path.glob("debian/bookworm-*/root/usr")]), within=120)
        first.kill()

    assert not (tmp_path / "debian/bookworm").exists()
    assert debian.unpacked().program("docker-init").is_relative_to(tmp_path)
    assert sorted(path.name for path in (tmp_path / "debian").iterdir()) == ["bookworm", "bookworm.lock"]


def test_an_engine_that_was_killed_starts_again_with_its_containers(engine: PrivateEngine) -> None:
    with PrivateEngine() as other:
        make_image(other, "app:1")
        other.docker("run", "-d", "--name=web", "app:1")

        other.kill()
        assert not other.answers()
        other.start()

        assert other.docker("ps", "--all", "--format={{.Names}} {{.Image}}") == "web app:1"
        assert other.docker("start", "web") == "web"


def test_an_engine_starts_again_as_the_engine_of_another_suite(engine: PrivateEngine) -> None:
    said = "--format={{.Client.Version}} {{.Server.Version}}"
    with PrivateEngine("bookworm") as other:
        make_image(other, "app:1")
        other.docker("run", "-d", "--name=web", "--volume=/data", "app:1")
        other.docker("exec", "web", "sh", "-c", "echo kept > /data/file")
        older = version("bookworm")
        assert other.docker("version", said) == f"{older} {older}"

        other.stop()
        other.start("forky")

        newer = version("forky")
        assert newer != older
        assert other.docker("version", said) == f"{newer} {newer}"
        assert other.suite == "forky"
        other.docker("start", "web")
        assert other.docker("exec", "web", "cat", "/data/file") == "kept"

        other.kill()
        other.start()
        assert other.docker("version", said) == f"{newer} {newer}"


@pytest.mark.parametrize(
    ("flavour", "store", "oldest_api"),
    [("forky", "overlay2", "1.24"), ("forky-containerd", "overlayfs", "1.44")],
)
def test_a_flavour_is_set_up_as_its_name_says(
    engine: PrivateEngine, flavour: str, store: str, oldest_api: str
) -> None:
    with FLAVOURS[flavour].engine() as other:
        assert other.docker("info", "--format={{.Driver}}") == store
        assert other.docker("version", "--format={{.Server.MinAPIVersion}}") == oldest_api


@pytest.mark.newest
def test_a_test_of_the_newest_engine_has_that_engine_and_its_registry(
    request: pytest.FixtureRequest, engine: PrivateEngine, app_image: Callable[..., str]
) -> None:
    suite = FLAVOURS[request.node.callspec.id].suite
    assert engine.docker("version", "--format={{.Server.Version}}") == version(suite)
    image = app_image("1")
    engine.docker("rmi", image)
    engine.docker("pull", image)


SOME_TESTS = """
import pytest

def test_plain(engine): ...
@pytest.mark.newest
def test_on_newest(registry): ...
@pytest.mark.newest
def test_without(): ...
@pytest.mark.compat
def test_compared(engine): ...
"""


@pytest.mark.parametrize(
    ("suites", "compat", "collected"),
    [
        ("", "", "plain on_newest[bookworm] on_newest[forky] without"),
        ("forky", "", "plain on_newest[forky] without"),
        ("trixie", "1", "plain on_newest[trixie] on_newest[forky] without compared"),
        (
            "trixie forky",
            "1",
            "plain[trixie] plain[forky] on_newest[trixie] on_newest[forky] without compared[trixie] compared[forky]",
        ),
    ],
    ids=["usual", "newest", "compat", "compat-of-two"],
)
def test_a_run_has_the_engines_that_it_asks_for(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, suites: str, compat: str, collected: str
) -> None:
    monkeypatch.setenv("LOOKOUT_TEST_SUITE", suites)
    monkeypatch.setenv("LOOKOUT_TEST_COMPAT", compat)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nmarkers =\n    newest\n    compat")
    pytester.makepyfile(SOME_TESTS)

    calls = pytester.inline_run("--collect-only", plugins=[conftest])

    [finish] = calls.getcalls("pytest_collection_finish")
    assert [item.name.removeprefix("test_") for item in finish.session.items] == collected.split()


def test_the_application_serves_its_tag_and_ends_at_once(
    engine: PrivateEngine, app_image: Callable[..., str], make_container: Callable[..., str]
) -> None:
    image = app_image("1.2", changes=["STOPSIGNAL SIGINT", 'ENV GREETING="hello world"'])
    name = make_container(image, "web")

    answer = "until wget -q -O - http://127.0.0.1:8080/; do sleep 0.1; done; echo; echo $GREETING"
    assert engine.docker("exec", name, "sh", "-c", answer) == "1.2\nhello world"
    began = time.monotonic()
    engine.docker("stop", "--time=10", name)
    assert time.monotonic() - began < 5


def test_the_fault_proxy_cuts_before_or_after_the_engine_did_it(
    engine: PrivateEngine, app_image: Callable[..., str], make_container: Callable[..., str]
) -> None:
    name = make_container(app_image("1"), "web")

    def running() -> bool:
        return engine.docker("inspect", "--format={{.State.Running}}", name) == "true"

    with FaultProxy(engine.socket, engine.directory / "fault.sock") as line:
        faulty = engine.at(line.docker_host)
        line.cut("POST .*/stop", when="before")
        with pytest.raises(DockerFailed):
            faulty.docker("stop", name)
        assert running()

        line.cut("POST .*/stop", when="after")
        with pytest.raises(DockerFailed):
            faulty.docker("stop", name)
        assert not running()

        line.go_down()
        with pytest.raises(DockerFailed):
            faulty.docker("start", name)
        line.come_back()
        faulty.docker("start", name)
        assert running()
        assert len([request for request in line.requests if "/stop" in request]) == 2


def test_the_fault_proxy_lies_before_or_after_the_engine_did_it(
    engine: PrivateEngine, app_image: Callable[..., str], make_container: Callable[..., str]
) -> None:
    name = make_container(app_image("1"), "web")

    def running() -> bool:
        return engine.docker("inspect", "--format={{.State.Running}}", name) == "true"

    with FaultProxy(engine.socket, engine.directory / "fault.sock") as line:
        faulty = engine.at(line.docker_host)
        line.answer("POST .*/stop", 304)
        faulty.docker("stop", name)
        assert running()

        line.answer("POST .*/stop", 500, when="after")
        with pytest.raises(DockerFailed, match="the line answers so"):
            faulty.docker("stop", name)
        assert not running()

        met: list[bool] = []
        line.meet("POST .*/start", lambda: met.append(running()))
        faulty.docker("start", name)
        assert (met, running()) == ([False], True)

        line.meet(lambda request: request.endswith("/stop"), lambda: met.append(running()), when="after")
        faulty.docker("stop", name)
        assert met == [False, False]
        faulty.docker("start", name)

        line.hang("POST .*/kill")
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(faulty.docker, "kill", name)
            assert not wait([waiting], timeout=0.5).done
            assert running()
            line.go_down()
            with pytest.raises(DockerFailed):
                waiting.result(10)


@pytest.mark.queue
def test_iam_allows_exactly_the_policy(sqs: LocalSqs, queue_url: str) -> None:
    with sqs.enforce_iam(RECEIVE_ONLY) as environment:
        client = botocore.session.Session().create_client(
            "sqs",
            region_name=environment["AWS_REGION"],
            endpoint_url=environment["AWS_ENDPOINT_URL_SQS"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
        client.receive_message(QueueUrl=queue_url)
        with pytest.raises(ClientError, match="AccessDenied"):
            client.send_message(QueueUrl=queue_url, MessageBody="x")
        client.close()
    sqs.send(queue_url, "x")
    assert sqs.count(queue_url) == (1, 0)
