"""Which source speaks for a registry, and that none speaks for another."""

import pytest
from structlog.testing import capture_logs

from lookout.credentials import Credentials
from lookout.errors import AccessFailed, CredentialsMissing, PullFault
from lookout.keychain import Given, Keychain


class Book:
    """A source of what is written in it; a text is why there is nothing."""

    def __init__(self, **written: str | Credentials) -> None:
        self.written = {name.replace("_", "."): what for name, what in written.items()}

    async def find(self, registry: str) -> Credentials | None:
        found = self.written.get(registry)
        if isinstance(found, str):
            raise CredentialsMissing(found)
        return found


ONE, OTHER = Credentials("one", "ci", "1"), Credentials("other", "ci", "2")


async def test_the_first_source_that_has_some_speaks() -> None:
    keychain = Keychain([Book(a_io=ONE), Book(a_io=OTHER, b_io=OTHER)])
    assert (await keychain.access("a.io")).credentials == ONE
    assert (await keychain.access("B.io")).credentials == OTHER
    assert (await keychain.access("c.io")).credentials is None
    assert (await keychain.access("c.io")).source == "no credentials"


async def test_what_one_source_lacks_is_said_once_and_another_may_have_it() -> None:
    keychain = Keychain([Book(a_io="the file is broken", b_io="the file is broken"), Book(a_io=ONE)])
    with capture_logs() as logs:
        for _ in range(3):
            access = await keychain.access("a.io")
            assert (access.credentials, access.remarks) == (ONE, ["the file is broken"])
        assert (await keychain.access("b.io")).remarks == ["the file is broken"]
    assert [event["reason"] for event in logs] == ["the file is broken"]


class Closed:
    """A source without which there is no way."""

    async def find(self, registry: str) -> Credentials | None:
        raise AccessFailed(PullFault.CREDENTIALS, "a token", f"denied for {registry}", "add a permission")


async def test_where_there_is_no_way_what_others_lack_is_said_too() -> None:
    with pytest.raises(AccessFailed) as caught:
        await Keychain([Book(a_io="no helper"), Closed()]).access("a.io")
    assert caught.value.hint == "add a permission; no helper"


def given(*managed: str, server: str = "") -> Given:
    async def registries() -> set[str]:
        return {*managed}

    return Given("ci", "hunter2", server, registries)


async def test_what_is_given_for_a_server_goes_there_only_whatever_runs_here() -> None:
    source = given("a.io", "b.io", server="a.io")
    assert await source.find("a.io")
    assert await source.find("b.io") is None


async def test_what_is_given_for_none_goes_to_the_one_that_all_containers_come_from() -> None:
    found = await given("a.io").find("a.io")
    assert found
    assert (found.username, found.password) == ("ci", "hunter2")


@pytest.mark.parametrize("managed", [("a.io", "b.io"), ("b.io",)])
async def test_with_several_registries_it_goes_nowhere_and_the_log_asks_which(
    managed: tuple[str, ...],
) -> None:
    with pytest.raises(CredentialsMissing, match=r"come from a\.io, b\.io; set RegistryServer") as caught:
        await given(*managed).find("a.io")
    assert "hunter2" not in str(caught.value)
