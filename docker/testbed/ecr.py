"""ECR's registry, as an engine sees it; the tokens that it takes come from the local AWS server."""

import time

from aiohttp import web

from testbed.faulty_registry import FaultyRegistry
from testbed.inner_server import user_of
from testbed.sandbox import HOSTS, Sandbox
from testbed.sqs import LocalSqs

_EXPIRED = {
    "code": "DENIED",
    "message": "Your authorization token has expired. Reauthenticate and try again.",
}


def ecr_host(region: str) -> str:
    """The host of the registry in a region; there are eu-west-1 and us-east-1."""
    [host] = [name for name in HOSTS if f".dkr.ecr.{region}." in name]
    return host


class Ecr(FaultyRegistry):
    """The registry of a region, in front of the open one at 127.0.0.1:`target` of the same sandbox.

    What is pushed there can be pulled here, by user AWS with a token that `aws` gave for the region and
    that lives still. `revoked` holds tokens that are to be refused all the same. It is a faulty line too.
    """

    def __init__(self, sandbox: Sandbox, target: int, aws: LocalSqs, region: str = "eu-west-1") -> None:
        super().__init__(sandbox, ecr_host(region), target)
        self.revoked: set[str] = set()
        self._region = region
        self._aws = aws
        self._given_before = len(aws.ecr_tokens())

    def tokens(self) -> list[str]:
        """The tokens that were given since this was made, in order."""
        return self._aws.ecr_tokens()[self._given_before :]

    def refusal(self, request: web.Request) -> web.Response | None:
        user, token = user_of(request.headers.get("Authorization", "")) or ("", "")
        expiry = self._aws.mint.expiry(token, self._region)
        if user != "AWS" or expiry is None:
            challenge = f'Basic realm="https://{self.host}/",service="ecr.amazonaws.com"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge}, text="Not Authorized\n")
        if expiry <= time.time() or token in self.revoked:
            return web.json_response({"errors": [_EXPIRED]}, status=403)
        return None
