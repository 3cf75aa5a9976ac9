"""GitHub's workflows, as far as can be told without GitHub; `make lint` knows their schema."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.stem: path.read_text() for path in FOLDER.glob("*.yml")}
JOBS: dict[str, dict[str, Any]] = {name: YAML(typ="safe").load(text)["jobs"] for name, text in TEXTS.items()}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHECK = "The tag is the version"


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(job.get("steps", []))


@pytest.mark.parametrize("workflow", JOBS)
def test_a_job_waits_for_jobs_and_reads_of_steps_that_there_are(workflow: str) -> None:
    for name, job in JOBS[workflow].items():
        assert set(job.get("needs", [])) <= JOBS[workflow].keys() - {name}
        read = set(re.findall(r"steps\.(\w+)\.", str(job)))
        assert read <= {step.get("id") for step in steps(job)}


def test_only_one_job_may_write_packages_and_only_another_may_ask_pypi() -> None:
    allowed = {name: dict(job["permissions"]) for jobs in JOBS.values() for name, job in jobs.items()}
    assert allowed.pop("image") == {"contents": "read", "packages": "write"}
    assert allowed.pop("pypi") == {"id-token": "write"}
    assert all(permissions == {"contents": "read"} for permissions in allowed.values())


def test_nothing_is_published_that_was_not_tested_and_built() -> None:
    for name in ("image", "pypi"):
        assert set(JOBS["release"][name]["needs"]) >= {"test", "distributions"}
    assert (FOLDER / Path(JOBS["release"]["test"]["uses"]).name).is_file()


def test_the_image_is_pushed_for_both_platforms_once_each_has_started_and_says_what_is_in_it() -> None:
    every = [step["with"] for step in steps(JOBS["release"]["image"]) if "build-push" in step.get("uses", "")]
    *started, pushed = every
    assert {(ROOT / build["context"] / build["file"]).is_file() for build in every} == {True}
    assert set(pushed["platforms"].split(",")) == {build["platforms"] for build in started}
    assert set(pushed["platforms"].split(",")) == {"linux/amd64", "linux/arm64"}
    assert not any(build.get("push") for build in started)
    assert (pushed["push"], pushed["sbom"], pushed["provenance"]) == (True, True, "mode=max")


@pytest.mark.parametrize(
    ("tag", "is_right"), [(f"v{VERSION}", True), (VERSION, False), (f"v{VERSION}.1", False), ("v", False)]
)
def test_a_release_has_the_version_of_the_package(tag: str, is_right: bool) -> None:
    (check,) = (step for step in steps(JOBS["release"]["distributions"]) if step.get("name") == CHECK)
    ended = subprocess.run(
        ["sh", "-e", "-c", check["run"]],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode == 0) is is_right
    assert ended.stdout.startswith("::error ") is not is_right


def test_a_workflow_runs_targets_of_make_that_there_are() -> None:
    run = [
        step["run"] for jobs in JOBS.values() for job in jobs.values() for step in steps(job) if "run" in step
    ]
    named = {target for script in run for target in re.findall(r"^make ([a-z]+)$", script, re.MULTILINE)}
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named
    assert named <= set(targets)
