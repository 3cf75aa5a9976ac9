"""What goes into the header, and which registry an address means."""

import base64
import json

import pytest

from lookout.credentials import Access, Credentials, registry_of


def sent(credentials: Credentials, registry: str) -> object:
    return json.loads(base64.urlsafe_b64decode(credentials.header(registry)))


def test_the_header_is_for_one_registry_and_says_no_more_than_there_is() -> None:
    assert sent(Credentials("a file", "ci", "hunter2"), "ghcr.io") == {
        "username": "ci",
        "password": "hunter2",
        "serveraddress": "ghcr.io",
    }
    assert sent(Credentials("a file", identity_token="t0ken"), "docker.io") == {
        "identitytoken": "t0ken",
        "serveraddress": "https://index.docker.io/v1/",
    }


def test_credentials_are_never_shown() -> None:
    credentials = Credentials("a file", "ci", "hunter2", "hunter2", "hunter2")
    assert "hunter2" not in f"{credentials!r} {credentials} {Access(credentials)!r}"
    assert "a file" in repr(credentials)


@pytest.mark.parametrize(
    ("address", "registry"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io/v2/", "ghcr.io"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_an_address_means_a_registry(address: str, registry: str) -> None:
    assert registry_of(address) == registry
