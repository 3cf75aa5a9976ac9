"""What the image is made of is written down whole, and agrees with the rest of the project."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PINS = {
    "requirements.txt": [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["cli"],
    ],
    "build.txt": PROJECT["build-system"]["requires"],
}


def pinned(file: str) -> dict[str, tuple[str, int]]:
    """The version of each package that a file of pins names, and how many hashes it has."""
    text = (ROOT / "docker" / "image" / file).read_text().replace("\\\n", " ")
    found: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        name, version, hashes = re.fullmatch(
            r"(\S+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})*) *", line
        ).groups()  # type: ignore[union-attr]
        found[canonicalize_name(name)] = version, hashes.count("--hash")
    return found


@pytest.mark.parametrize("file", PINS)
def test_every_dependency_is_pinned_to_a_version_that_it_may_have(file: str) -> None:
    versions = pinned(file)
    for requirement in map(Requirement, PINS[file]):
        version, _ = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("file", PINS)
def test_every_package_is_pinned_by_hashes_and_nothing_else_is_in_the_list(file: str) -> None:
    assert all(hashes for _, hashes in pinned(file).values())


def test_the_label_tells_the_version_of_the_project() -> None:
    assert f'org.opencontainers.image.version="{PROJECT["project"]["version"]}"' in DOCKERFILE


def test_the_health_check_is_that_of_the_readme() -> None:
    (check,) = re.findall(r'CMD \["sh", "-c", "(find .*)"\]', DOCKERFILE)
    default = check.replace("\\", "").replace("${HeartbeatFile:-${HEARTBEAT_FILE:-", "").replace("}}", "")
    assert default.replace('"', "") in (ROOT / "README.md").read_text()


def test_wheels_are_those_for_the_python_of_the_base_image() -> None:
    (python,) = re.findall(r"^ARG BASE_IMAGE=python:(\d+\.\d+)-slim$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"--python-version (\S+)", MAKEFILE)) == {python}
    assert f"--abi cp{python.replace('.', '')} " in MAKEFILE


def test_the_context_holds_only_what_the_image_is_made_of() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.rstrip("/").removeprefix("./")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert allowed == {word.replace("wheel[s]", "wheels") for word in copied}
