"""The README says what the code does."""

import argparse
import json
import os
import re
import subprocess
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic.alias_generators import to_pascal
from pydantic_core import PydanticUndefined
from tests.unit import bodies

from lookout import arguments, pins, planner, ready, replies, targets, verdict
from lookout.chosen import RETIRED
from lookout.heartbeat import HeartbeatFile
from lookout.metrics import Metrics
from lookout.model import ContainerReport, DeployRequest, Outcome, Phase
from lookout.result import Result
from lookout.settings import Settings
from lookout.vitals import Vitals

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
JSONS = re.findall(r"```json\n(.*?)```", README, re.DOTALL)


def rows(heading: str) -> dict[str, list[str]]:
    """The table below a heading: the cells of each row, by the name in its first cell."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): cells[1:] for line in lines if (cells := _cells(line))}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


SETTINGS = [name for name in Settings.model_fields if name not in RETIRED]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_row_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    written = rows("Settings")[to_pascal(name)][0].strip("`")
    assert written == {PydanticUndefined: "required", None: ""}.get(default, str(default))


def test_no_row_is_about_a_setting_that_is_none() -> None:
    assert set(rows("Settings")) == {to_pascal(name) for name in SETTINGS}


def test_every_outcome_has_a_row() -> None:
    assert set(rows("What happens to a message")) == set(Outcome)


def test_every_file_is_in_the_list_of_files() -> None:
    listed = {name for first in rows("Develop") for name in re.findall(r"\w+\.py", first)}
    files = {path.name for path in (ROOT / "src" / "lookout").glob("*.py")}
    shown_nowhere = {"__init__.py", "__main__.py", "errors.py", "model.py", "unbroken.py"}
    assert listed == files - shown_nowhere


def test_the_message_that_ci_is_told_to_send_is_understood() -> None:
    assert isinstance(bodies.parse(JSONS[0]), DeployRequest)


def test_the_message_of_the_first_workflow_is_understood_too() -> None:
    step = README.partition("```yaml")[2].partition("```")[0]
    (body,) = re.findall(r"--message-body '(\{.*\})'$", step, re.MULTILINE)
    assert isinstance(bodies.parse(body.replace("${{ github.sha }}", "0" * 40)), DeployRequest)


def test_the_first_policies_allow_what_later_ones_do() -> None:
    first = README.partition("## Five minutes")[2].partition("\n## ")[0]
    host, sender = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", first, re.DOTALL))
    later = README.partition("**Permissions.**")[2].partition("\n**")[0]
    receiver, dead, results, ci = (
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", later, re.DOTALL)
    )
    replies = [resource for resource in results["Resource"] if resource.endswith("lookout-reply-*")]
    together = dead | {"Resource": [dead["Resource"], *replies]}
    assert host == receiver | {"Statement": [*receiver["Statement"], together]}
    assert sender == ci


def test_the_rule_for_ecr_lets_through_what_lookout_understands() -> None:
    (pattern,) = (block for block in map(json.loads, JSONS) if "source" in block)
    asked = pattern | pattern.pop("detail")
    told = bodies.PUSH | bodies.PUSH["detail"]
    assert {"source", "detail-type", "action-type", "result"} <= {
        key for key, values in asked.items() if told[key] in values
    }
    assert asked.keys() <= told.keys()


def test_the_result_that_is_shown_is_one_and_every_key_has_a_row() -> None:
    (shown,) = (block for block in JSONS if "lookout.result" in block)
    assert json.loads(Result.from_json(shown).to_json()) == json.loads(shown)
    keys = {key for row in rows_of_several("Results") for key in row}
    container = ContainerReport("api", None, Phase.WAITING, "a", "b", 1.0, "log", "why")
    now = datetime.now(UTC)
    full = Result("m", "a", "1", "h", None, "e", True, now, now, now, (container,), Phase.PULLING, 1, 1, 1)
    # A container's own keys are told of in the row of all containers.
    assert keys == (json.loads(full.to_json()).keys() | {"WillRetry", "LogTail"}) - {"Type"}


def rows_of_several(heading: str) -> list[list[str]]:
    """The names in the first cells of the table below a heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [re.findall(r"`(\w+)`", _cells(line)[0]) for line in lines]


def test_how_long_a_result_is_tried_is_what_the_code_does() -> None:
    patience = replies.RESULT_PATIENCE, replies.REPLY_PATIENCE
    assert "{:.0f} s of tries ({:.0f} s for a reply queue)".format(*patience) in README


def test_every_label_of_the_users_has_a_row() -> None:
    assert set(rows("What happens to a container")) == {
        targets.ENABLE,
        planner.RECREATE_DEPENDENTS,
        pins.LABEL,
        ready.MONITOR_SECONDS,
    }


def test_every_word_of_a_pin_is_listed() -> None:
    section = README.partition("The words of `lookout.pin` are")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`([a-z-]+(?::[A-Z/]+)?)`", section))
    assert listed == set(pins.KNOWN)


@pytest.mark.parametrize(
    ("command", "heading"), [("plan", "See it first: `lookout plan`"), ("deploy", "Send from CI")]
)
def test_every_option_of_a_command_has_a_row(command: str, heading: str) -> None:
    options = {option for action in actions_of(command) for option in action.option_strings}
    assert {first.split()[0] for first in rows(heading) if first.startswith("--")} == options - {
        "-h",
        "--help",
    }


def actions_of(command: str) -> list[argparse.Action]:
    parser = arguments.parser()
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return list(commands.choices[command]._actions)


def test_every_ending_has_its_exit_code_where_the_command_is_told_of() -> None:
    section = README.partition("### `lookout deploy`")[2].partition("\n### ")[0]
    codes = dict(re.findall(r"^\| ([0-9, ]+) \| (.*) \|$", section, re.MULTILINE))
    assert set(codes) == {"0", "1", "2", "3", "130, 143, 129"}
    assert {Outcome(word) for word in re.findall(r"`([a-z_]+)`", codes["0"])} == set(verdict.GOOD)


def test_every_metric_has_a_row() -> None:
    shown = {
        family.name: family for family in text_string_to_metric_families(Metrics(Vitals()).text().decode())
    }
    names = {name + ("_total" if family.type == "counter" else "") for name, family in shown.items()}
    assert {name for name in rows("Operate") if name.startswith("lookout_")} == names


@pytest.mark.parametrize(
    ("age", "is_well"), [(0, True), (55, True), (65, False), (100_000, False), (None, False)]
)
def test_the_check_of_the_heartbeat_file_tells_whether_it_is_young(
    tmp_path: Path, age: float | None, is_well: bool
) -> None:
    (check,) = (block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "heartbeat" in block)
    path = Settings.model_fields["heartbeat_file"].default
    assert str(path) in check
    file = tmp_path / "heartbeat"
    if age is not None:
        HeartbeatFile(file).touch()
        os.utime(file, (time.time() - age,) * 2)
    ended = subprocess.run(
        ["sh", "-c", check.replace(str(path), str(file))], capture_output=True, check=False
    )
    assert (ended.returncode == 0) is is_well


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z]+)", README))
    assert named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def test_a_library_at_the_border_is_imported_in_one_file_for_each_service_behind_it() -> None:
    for library, only in (("aiodocker", {"engine_api.py"}), ("aiobotocore", {"sqs.py", "ecr.py"})):
        importing = {
            path.name
            for path in (ROOT / "src" / "lookout").glob("*.py")
            if re.search(rf"^\s*(import|from) {library}\b", path.read_text(), re.MULTILINE)
        }
        assert importing == only


def test_the_changelog_has_a_section_for_what_is_not_released() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in changelog or f"## {version}" in changelog
