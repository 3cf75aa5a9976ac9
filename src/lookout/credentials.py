"""What a registry is shown to let a pull through; no log line, label or error ever holds it."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lookout.model import DEFAULT_DOMAIN

#: The address by which Docker's own tools know Docker Hub.
HUB_ADDRESS = "https://index.docker.io/v1/"
#: The source of tokens for Amazon ECR.
ECR_TOKEN = "a token of Amazon ECR"  # noqa: S105  no token itself
_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Credentials:
    """Those of one registry: name and password, or a token that stands for a login."""

    source: str  # where Lookout has them from, for the log
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    #: To be called when the registry did not take them: what is kept of them is not given out again.
    forget: Callable[[], None] = field(default=_nothing, repr=False, compare=False)

    def header(self, registry: str) -> str:
        """The value of X-Registry-Auth: AuthConfig of the Engine API, as base64.

        The containerd image store compares serveraddress with the host that it pulls from.
        """
        given = {
            "username": self.username,
            "password": self.password,
            "identitytoken": self.identity_token,
            "registrytoken": self.registry_token,
        }
        config = {key: value for key, value in given.items() if value}
        config["serveraddress"] = address_of(registry)
        return base64.urlsafe_b64encode(json.dumps(config).encode()).decode()


@dataclass(frozen=True)
class Access:
    """How a registry is asked: with which credentials, if any, and what kept Lookout from having others."""

    credentials: Credentials | None = None
    remarks: Sequence[str] = ()

    @property
    def source(self) -> str:
        return self.credentials.source if self.credentials else "no credentials"


def registry_of(address: str) -> str:
    """The registry that an address means, as image names spell it.

    `https://ghcr.io/v2/` is `ghcr.io`; the addresses of Docker Hub are `docker.io`.
    """
    host = address.strip().lower()
    for scheme in ("https://", "http://"):
        host = host.removeprefix(scheme)
    host = host.partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB_HOSTS else host


def address_of(registry: str) -> str:
    """The address of a registry, as Docker's own tools and their credential helpers spell it."""
    return HUB_ADDRESS if registry == DEFAULT_DOMAIN else registry
