"""What all of AWS has in common: how it names its places, and how it refuses."""

import json
import re
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from botocore.exceptions import (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

#: Codes of errors: the permission is missing.
DENIED = ("AccessDenied", "AccessDeniedException", "403", "KmsAccessDenied")
#: Errors of the SDK: it has nothing to sign a call with.
NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
)

_COMMERCIAL = "amazonaws.com"
# The partitions of AWS, by how their regions begin.
_DNS_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}
_DOMAINS = tuple(f".{suffix}" for suffix in (_COMMERCIAL, "api.aws", *_DNS_SUFFIXES.values()))
_REGION = re.compile(r"(?:^|\.)([a-z]{2,}(?:-[a-z]+)+-[0-9]+)\.")
# Also the addresses for FIPS, and for both versions of IP.
_ECR = re.compile(
    r"(?P<account>[0-9]{12})\.dkr(?:\.|-)ecr(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z.-]+)"
    r"(?::[0-9]+)?"
)
_DUAL_STACK = ("on.aws", "on.amazonwebservices.com.cn")
_WITHOUT_REGION = {"queue.amazonaws.com": "us-east-1"}
_PORTS = {"http": 80, "https": 443}


def said(problem: Exception) -> str:
    """What an error says, on one line; not what a program that gives credentials has written."""
    if isinstance(problem, CredentialRetrievalError):
        return f"{problem.kwargs.get('provider', 'their provider')} gave none"
    return " ".join(str(problem).split()) or type(problem).__name__


def statement(action: str, resource: str) -> str:
    """What a policy lacks that does not allow this action on this resource."""
    return json.dumps({"Effect": "Allow", "Action": action, "Resource": resource}, ensure_ascii=False)


def dns_suffix(region: str) -> str:
    """The domain under which AWS has the services of a region."""
    for start, suffix in _DNS_SUFFIXES.items():
        if region.startswith(start):
            return suffix
    return _COMMERCIAL


def is_at_aws(host: str) -> bool:
    """Such as sqs.REGION.amazonaws.com, the older REGION.queue.amazonaws.com, or a VPC endpoint."""
    return host.endswith(_DOMAINS)


def region_of(host: str) -> str | None:
    """The region that a host of AWS names; None for any other."""
    if region := _WITHOUT_REGION.get(host):
        return region
    match = _REGION.search(host) if is_at_aws(host) else None
    return match[1] if match else None


class EcrRegistry(NamedTuple):
    """A private registry of Amazon ECR: each account has one in each region."""

    account: str
    region: str
    is_fips: bool

    @classmethod
    def parse(cls, host: str) -> Self | None:
        """The registry that a host names, such as ACCOUNT.dkr.ecr.REGION.amazonaws.com; None for any other."""
        match = _ECR.fullmatch(host)
        if match is None or match["suffix"] not in (dns_suffix(match["region"]), *_DUAL_STACK):
            return None
        return cls(match["account"], match["region"], bool(match["fips"]))


class QueueUrl(NamedTuple):
    """A queue by its URL: where its server is, the path of its account, its own name."""

    server: str  # AWS has several hosts for one: there it is known by its region
    account: str
    name: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError where that is no URL."""
        parts = urlsplit(url)
        port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
        host = parts.hostname or ""
        account, _, name = parts.path.rstrip("/").rpartition("/")
        return cls(f"{parts.scheme}://{region_of(host) or host}:{port}", account, name)
