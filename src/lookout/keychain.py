"""Where credentials come from: the settings, Docker's own configuration, Amazon ECR, in this order."""

from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Protocol

import structlog

from lookout.credentials import Access, Credentials
from lookout.errors import AccessFailed, CredentialsMissing

log = structlog.stdlib.get_logger(__name__)


class Source(Protocol):
    """One place that credentials come from."""

    async def find(self, registry: str) -> Credentials | None:
        """Those for this registry, and never for another; None where it has none.

        Raises CredentialsMissing where it should have some, and AccessFailed where nothing can be pulled
        without.
        """


class Keychain:
    """Asks its sources in turn; the first that has credentials for a registry is the one."""

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self._sources = sources
        self._said: set[str] = set()

    async def access(self, registry: str) -> Access:
        """How to ask this registry now; what a source lacks is logged when it comes up, and goes with it.

        Raises AccessFailed where there is no way.
        """
        remarks: list[str] = []
        for source in self._sources:
            try:
                if found := await source.find(registry.lower()):
                    return Access(found, remarks)
            except CredentialsMissing as exc:
                remarks.append(str(exc))
                self._say(registry, str(exc))
            except AccessFailed as exc:
                exc.hint = "; ".join((exc.hint, *remarks))
                raise
        return Access(None, remarks)

    def _say(self, registry: str, remark: str) -> None:
        """Once: each pull would say the same."""
        if remark not in self._said:
            self._said.add(remark)
            log.warning("credentials not used", registry=registry, reason=remark)


class Given:
    """Name and password of the settings, for one registry: never for each that an image happens to name."""

    def __init__(
        self, username: str, password: str, server: str, managed: Callable[[], Awaitable[Set[str]]]
    ) -> None:
        """They are for `server`; empty, for the one that all managed containers come from, by `managed`."""
        self._credentials = Credentials("RegistryUsername", username, password)
        self._server = server
        self._managed = managed

    async def find(self, registry: str) -> Credentials | None:
        if self._server:
            return self._credentials if registry == self._server else None
        registries = await self._managed() | {registry}
        if len(registries) > 1:
            raise CredentialsMissing(
                f"RegistryUsername is sent to no registry, because containers here come from "
                f"{', '.join(sorted(registries))}; set RegistryServer to the one that it is for"
            )
        return self._credentials
