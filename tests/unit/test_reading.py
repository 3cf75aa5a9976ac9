"""Settings that another process reads: they are the same, and it leaves nothing behind but them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import lookout
from lookout import chosen, settings

CODE = str(Path(lookout.__file__).parent.parent)
URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/deploys"
#: All in one, since each takes a process.
EVERYTHING = {
    "SqsQueueUrl": URL,
    "LogLevel": "debug",
    "LogFormat": "json",
    "RegistryUsername": "ci",
    "RegistryPassword": " hunter2 ",
    "UnmatchedMessages": "delete",
    "DeadLetterQueueUrl": f"{URL}-dead",
    "HeartbeatFile": "/run/heartbeat",
    "DOCKER_HOST": " ",
}
DOTENV = "AWS_REGION=eu-north-1\nHttpPort=9469\n"
TELLS_HALF = "dumps = reading.pickle.dumps\nreading.pickle.dumps = lambda told: dumps(told)[:-9]\n"
ENDS_UNHEARD = "reading._read = lambda: 1 / 0\n"
HAS_NO_ROOM = "def refuse(): raise BlockingIOError\nos.fork = refuse\n"

TELL = """
import json, os, sys
from lookout import reading
{trouble}
try:
    found = {how}
except reading.WrongSettings as exc:
    print(json.dumps(exc.lines))
    sys.exit()
try:
    os.waitpid(-1, os.WNOHANG)
    children = True
except ChildProcessError:
    children = False
password = found.registry_password
print(json.dumps({{
    "modules": sorted({{name.partition(".")[0] for name in sys.modules}}),
    "children": children,
    "settings": found.shown() | {{
        "password": password and password.get_secret_value(),
        "region": found.region,
        "others": found.other_queues,
    }},
    "environment": dict(os.environ),
}}))
"""
APART = "reading.Reading().settings()"
HERE = "__import__('lookout.settings').settings.load()"


def told(folder: Path, environment: dict[str, str], how: str = APART, trouble: str = "") -> Any:
    """What the settings are to a process that has them read in this way."""
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", TELL.format(how=how, trouble=trouble)],
        env={"PATH": os.defpath, "PYTHONPATH": CODE, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stderr == ""
    return json.loads(said.stdout)


def test_they_are_those_that_this_process_would_read_and_what_reads_them_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(DOTENV)
    apart, here = told(tmp_path, EVERYTHING), told(tmp_path, EVERYTHING, HERE)
    assert apart["settings"] == here["settings"]
    assert apart["settings"]["region"] == "eu-north-1"
    assert apart["settings"]["password"] == "hunter2"
    assert apart["settings"]["RegistryPassword"] == "*" * 10
    assert apart["environment"] == here["environment"]
    assert apart["environment"].keys() - EVERYTHING.keys() >= {"AWS_REGION"}
    assert "DOCKER_HOST" not in apart["environment"]
    assert not {"pydantic", "pydantic_core", "pydantic_settings", "dotenv"} & set(apart["modules"])
    assert "pydantic" in here["modules"]
    assert not apart["children"]


def test_each_wrong_setting_has_its_line(tmp_path: Path) -> None:
    wrong = {"SqsQueueUrl": "deploys", "MaxMessages": "many"}
    lines = told(tmp_path, wrong)
    assert [line.partition(":")[0] for line in lines] == ["SqsQueueUrl", "MaxMessages"]
    assert lines == told(tmp_path, wrong, HERE)


@pytest.mark.parametrize("trouble", [ENDS_UNHEARD, TELLS_HALF, HAS_NO_ROOM])
def test_where_no_other_process_can_read_them_this_one_does(tmp_path: Path, trouble: str) -> None:
    found = told(tmp_path, EVERYTHING, trouble=trouble)
    assert found["settings"]["SqsQueueUrl"] == URL
    assert "pydantic" in found["modules"]


def test_one_whose_children_nobody_waits_for_has_them_read_too(tmp_path: Path) -> None:
    ignored = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    assert told(tmp_path, EVERYTHING, trouble=ignored)["settings"]["SqsQueueUrl"] == URL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_they_are_read_ends_lookout_in_order(tmp_path: Path, number: signal.Signals) -> None:
    os.mkfifo(tmp_path / ".env")  # of which nothing comes, so that the reading lasts
    lookout = subprocess.Popen(
        [sys.executable, "-m", "lookout"], env={"PYTHONPATH": CODE}, cwd=tmp_path, stderr=subprocess.PIPE
    )
    reading = Path(f"/proc/{lookout.pid}/task/{lookout.pid}/children")
    while not (children := reading.read_text()):
        time.sleep(0.01)
    lookout.send_signal(number)
    try:
        assert lookout.wait(60) == 0
    finally:
        lookout.kill()
        os.kill(int(children), signal.SIGKILL)
        said = lookout.communicate()[1]
    assert said == b""


def test_what_is_read_is_what_the_parts_are_promised() -> None:
    promised = get_type_hints(chosen.Settings)
    read = get_type_hints(settings.Settings)
    assert settings.Settings.model_fields.keys() == promised.keys()
    assert {name: read[name] for name in promised} == promised
