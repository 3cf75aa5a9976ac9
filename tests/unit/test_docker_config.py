"""config.json in all the ways that it is written, and the helpers that it names."""

import asyncio
import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lookout import docker_config
from lookout.credentials import Credentials
from lookout.docker_config import DockerConfig
from lookout.errors import CredentialsMissing

Write = Callable[..., DockerConfig]


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def shown(credentials: Credentials | None) -> tuple[str, ...]:
    if credentials is None:
        return ()
    tokens = (credentials.identity_token, credentials.registry_token)
    return (credentials.username, credentials.password, *(token for token in tokens if token))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a config.json of these keys, or of this text, and return its reader."""

    def write(text: str = "", **keys: Any) -> DockerConfig:
        (tmp_path / "config.json").write_text(text or json.dumps(keys))
        return DockerConfig(tmp_path)

    return write


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a credential helper on the PATH, as a shell script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name: str, script: str) -> None:
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f'#!/bin/sh\ntest "$1" = get || exit 9\nread server\n{script}\n')
        program.chmod(0o755)

    return make


# The file


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("http://127.0.0.1:5001/v2/", "127.0.0.1:5001"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
async def test_a_login_is_found_however_its_registry_is_written(
    write: Write, key: str, registry: str
) -> None:
    config = write(auths={key: {"auth": auth("ci:hunter2")}})
    assert shown(await config.find(registry)) == ("ci", "hunter2")
    assert await config.find("quay.io") is None


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"auth": auth("ci:hun:ter:2")}, ("ci", "hun:ter:2")),
        ({"auth": auth("ci:hunter2\x00")}, ("ci", "hunter2")),
        ({"auth": auth("ci:pässwörd")}, ("ci", "pässwörd")),
        ({"username": "ci", "password": "hunter2"}, ("ci", "hunter2")),
        ({"auth": auth("0000:"), "identitytoken": "t0ken"}, ("0000", "", "t0ken")),
        ({"registrytoken": "t0ken"}, ("", "", "t0ken")),
        ({}, ()),
        ({"auth": ""}, ()),
        (None, ()),
    ],
)
async def test_an_entry_says_who_or_nothing(write: Write, entry: Any, found: tuple[str, ...]) -> None:
    assert shown(await write(auths={"ghcr.io": entry}).find("ghcr.io")) == found


async def test_the_address_of_docker_itself_goes_before_others_that_mean_the_same(write: Write) -> None:
    for registry, key in (("docker.io", "https://index.docker.io/v1/"), ("ghcr.io", "ghcr.io")):
        other = "docker.io" if registry == "docker.io" else "https://ghcr.io/v2/"
        config = write(auths={other: {"auth": auth("other:1")}, key: {"auth": auth("right:2")}})
        assert shown(await config.find(registry)) == ("right", "2")


async def test_the_source_is_the_file(write: Write, tmp_path: Path) -> None:
    found = await write(auths={"ghcr.io": {"auth": auth("ci:hunter2")}}).find("ghcr.io")
    assert found
    assert found.source == str(tmp_path / "config.json")


async def test_a_file_that_is_written_over_or_replaced_counts_at_once(write: Write, tmp_path: Path) -> None:
    config = DockerConfig(tmp_path)
    assert await config.find("ghcr.io") is None
    write(auths={"ghcr.io": {"auth": auth("ci:first")}})
    assert shown(await config.find("ghcr.io")) == ("ci", "first")
    write(auths={"ghcr.io": {"auth": auth("ci:second")}})
    assert shown(await config.find("ghcr.io")) == ("ci", "second")
    new = tmp_path / "new"
    new.write_text(json.dumps({"auths": {"ghcr.io": {"auth": auth("ci:third")}}}))
    new.replace(tmp_path / "config.json")
    assert shown(await config.find("ghcr.io")) == ("ci", "third")
    (tmp_path / "config.json").unlink()
    assert await config.find("ghcr.io") is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "\xff",
        "[" * 99999,
        '{"auths": {"ghcr.io": {"auth": "hunter2"}}}',
        '{"auths": {"ghcr.io": {"auth": 7}}}',
    ],
)
async def test_a_file_that_is_broken_is_said_without_any_of_it(
    write: Write, tmp_path: Path, text: str
) -> None:
    with pytest.raises(CredentialsMissing, match="docker login") as caught:
        await write(text).find("ghcr.io")
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ['{"credsStore": ["x"]}', '{"auths": []}', '{"auths": {"ghcr.io": 7}}', '{"credHelpers": 7}']
)
async def test_a_file_of_another_shape_says_nothing(write: Write, text: str) -> None:
    assert await write(text).find("ghcr.io") is None


async def test_what_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CredentialsMissing, match="cannot be read"):
        await DockerConfig(tmp_path).find("ghcr.io")


def test_the_folder_is_that_of_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_config.folder() == tmp_path
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", "/home/ci")
    assert docker_config.folder() == Path("/home/ci/.docker")


# Helpers

PRINTS = 'printf \'{"ServerURL": "%s", "Username": "ci", "Secret": "for %s"}\' "$server" "$server"'


async def test_a_helper_is_asked_by_the_address_that_docker_would_use(
    write: Write, helper: Callable[[str, str], None]
) -> None:
    helper("vault", PRINTS)
    for config in (write(credsStore="vault"), write(credHelpers={"ghcr.io": "vault", "docker.io": "vault"})):
        assert shown(await config.find("ghcr.io")) == ("ci", "for ghcr.io")
        assert shown(await config.find("docker.io")) == ("ci", "for https://index.docker.io/v1/")


async def test_the_helper_of_a_registry_goes_before_that_of_all(
    write: Write, helper: Callable[[str, str], None]
) -> None:
    helper("vault", PRINTS)
    helper("own", 'printf \'{"Username": "<token>", "Secret": "t0ken"}\'')
    found = await write(credsStore="vault", credHelpers={"ghcr.io": "own"}).find("ghcr.io")
    assert shown(found) == ("", "", "t0ken")
    assert found
    assert found.source == "docker-credential-own"


async def test_a_helper_that_has_nothing_leaves_the_word_to_the_file(
    write: Write, helper: Callable[[str, str], None]
) -> None:
    helper("vault", 'echo "credentials not found in native keychain"; exit 1')
    config = write(credsStore="vault", auths={"ghcr.io": {"auth": auth("ci:hunter2")}, "quay.io": {}})
    assert shown(await config.find("ghcr.io")) == ("ci", "hunter2")
    assert await config.find("quay.io") is None


async def test_an_entry_that_is_broken_or_names_no_helper_does_not_count_where_another_does(
    write: Write, helper: Callable[[str, str], None]
) -> None:
    helper("vault", PRINTS)
    config = write(credsStore="vault", auths={"ghcr.io": {"auth": "?"}, "quay.io": {"auth": auth("ci:1")}})
    assert shown(await config.find("ghcr.io")) == ("ci", "for ghcr.io")
    config = write(credsStore="vault", credHelpers={"quay.io": ""}, auths={"quay.io": {"auth": auth("ci:1")}})
    assert shown(await config.find("quay.io")) == ("ci", "1")


async def test_a_helper_that_is_not_here_is_said_unless_the_file_has_them_too(write: Write) -> None:
    config = write(credsStore="desktop", auths={"ghcr.io": {}, "quay.io": {"auth": auth("ci:hunter2")}})
    with pytest.raises(
        CredentialsMissing, match=r"ghcr\.io to docker-credential-desktop, which is not to be"
    ):
        await config.find("ghcr.io")
    assert shown(await config.find("quay.io")) == ("ci", "hunter2")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo hunter2; exit 3", "exit code 3"),
        ("echo hunter2", "gave no sensible answer"),
        ("echo '[\"hunter2\"]'", "gave no sensible answer"),
        ('echo \'{"Username": "hunter2"}\'', "gave no sensible answer"),
        ("exec sleep 60", "did not answer in time"),
        ("sleep 60; echo hunter2", "did not answer in time"),
    ],
)
async def test_what_a_bad_helper_says_is_never_shown(
    write: Write,
    helper: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    why: str,
) -> None:
    monkeypatch.setattr(docker_config, "HELPER", 0.5)
    helper("bad", script)
    with pytest.raises(CredentialsMissing, match=why) as caught:
        await write(credsStore="bad").find("ghcr.io")
    assert "echo ghcr.io | docker-credential-bad get" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_helper_that_hangs_can_be_given_up_with_all_that_it_has_started(
    write: Write, helper: Callable[[str, str], None]
) -> None:
    helper("slow", "sleep 60; echo")
    asking = asyncio.create_task(write(credsStore="slow").find("ghcr.io"))
    await asyncio.sleep(0.2)
    asking.cancel()
    done, _ = await asyncio.wait({asking}, timeout=10)
    assert done
