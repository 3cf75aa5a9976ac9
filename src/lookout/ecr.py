"""Tokens for Amazon ECR, by the credentials that Lookout itself has at AWS.

Reference: Amazon ECR API 2015-09-21, GetAuthorizationToken.
"""

import asyncio
import base64
import datetime
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection

from lookout.aws import DENIED, NO_CREDENTIALS, EcrRegistry, said, statement
from lookout.credentials import ECR_TOKEN, Credentials
from lookout.errors import AccessFailed, PullFault

LIFE = 43200.0  # seconds that a token of ECR lives
EARLY = 3600.0  # seconds before its end in which it is renewed, so that no pull outlives its token
DEADLINE = 20.0  # seconds for one call

PERMISSION = statement("ecr:GetAuthorizationToken", "*")

_THROTTLED = ("ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException")
_SERVER_ERROR = 500

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class _Token:
    credentials: Credentials
    renew_at: float  # by the monotonic clock


class Ecr:
    """One token for each registry: an account in a region. Renewed before it ends, for whoever asks."""

    def __init__(self) -> None:
        self._tokens: dict[str, _Token] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find(self, registry: str) -> Credentials | None:
        """A token that lives on for a while; None for a registry that is not of Amazon ECR.

        Raises AccessFailed where AWS gives none.
        """
        place = EcrRegistry.parse(registry)
        if place is None:
            return None
        async with self._locks[registry]:  # whoever comes second finds what the first has fetched
            token = self._tokens.get(registry)
            if token is None or token.renew_at <= time.monotonic():
                name, password, renew_at = await _fetch(place)
                forget = partial(self._forget, registry, password)
                credentials = Credentials(ECR_TOKEN, name, password, forget=forget)
                token = self._tokens[registry] = _Token(credentials, renew_at)
            return token.credentials

    def _forget(self, registry: str, token: str) -> None:
        """The next pull fetches another one: this may have been revoked."""
        known = self._tokens.get(registry)
        if known and known.credentials.password == token:
            del self._tokens[registry]


async def _fetch(place: EcrRegistry) -> tuple[str, str, float]:
    """A name, a token, and when it is to be renewed by the monotonic clock."""
    try:
        async with asyncio.timeout(DEADLINE):
            answer = await _ask(place)
        (data,) = answer["authorizationData"]
        name, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        life = _life(data.get("expiresAt"))
    except ClientError as exc:
        raise _refused(exc, place) from exc
    except (HTTPClientError, NoConnection, OSError, TimeoutError) as exc:
        raise AccessFailed(
            PullFault.TRANSIENT,
            ECR_TOKEN,
            f"ECR in {place.region} did not answer: {said(exc)}",
            f"check that the endpoint of ECR in {place.region} can be reached from Lookout",
        ) from exc
    except NO_CREDENTIALS as exc:
        raise AccessFailed(
            PullFault.CREDENTIALS,
            ECR_TOKEN,
            f"AWS credentials: {said(exc)}",
            "give Lookout credentials of AWS",
        ) from None
    except (BotoCoreError, KeyError, ValueError, TypeError) as exc:
        raise AccessFailed(
            PullFault.CREDENTIALS,
            ECR_TOKEN,
            f"AWS settings: {said(exc)}",
            "check the AWS settings of Lookout",
        ) from exc
    log.info("token of Amazon ECR fetched", account=place.account, region=place.region, seconds=round(life))
    return name, password, time.monotonic() + life - min(EARLY, life / 2)


async def _ask(place: EcrRegistry) -> Any:
    config = AioConfig(
        connect_timeout=5,
        read_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 1},  # the pull is tried again as a whole
        use_fips_endpoint=place.is_fips or None,
    )
    async with get_session().create_client("ecr", region_name=place.region, config=config) as client:
        return await client.get_authorization_token(registryIds=[place.account])


def _life(expires_at: object) -> float:
    """Seconds that a new token has; as long as ECR promises where the clocks do not agree on that."""
    if not isinstance(expires_at, datetime.datetime) or expires_at.tzinfo is None:
        return LIFE
    left = (expires_at - datetime.datetime.now(datetime.UTC)).total_seconds()
    return left if 0 < left < LIFE else LIFE


def _refused(exc: ClientError, place: EcrRegistry) -> AccessFailed:
    error = exc.response.get("Error", {})
    code = str(error.get("Code", ""))
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = " ".join(f"{code}: {error.get('Message', '')}".split())[:300]
    if code in _THROTTLED:
        return AccessFailed(PullFault.THROTTLED, ECR_TOKEN, text, "ECR is asked too often; it is tried again")
    if status >= _SERVER_ERROR:
        hint = f"check that ECR in {place.region} works"
        return AccessFailed(PullFault.TRANSIENT, ECR_TOKEN, text, hint)
    if code in DENIED and exc.operation_name == "GetAuthorizationToken":
        return AccessFailed(
            PullFault.CREDENTIALS, ECR_TOKEN, text, f"add to Lookout's IAM policy: {PERMISSION}"
        )
    return AccessFailed(PullFault.CREDENTIALS, ECR_TOKEN, text, "check the AWS credentials of Lookout")
