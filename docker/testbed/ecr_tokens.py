"""ECR's tokens: one of its own for each who asks, good for twelve hours, and only in its region."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

PATH = "/moto-api/ecr-tokens"
LIFE = 43200.0  # seconds
_PADDING = 1024  # bytes, for they are long


@dataclass(frozen=True)
class Mint:
    """Makes tokens and knows them again: they hold all that there is to know, and a signature."""

    secret: str

    def make(self, region: str, expires: float) -> str:
        """A new token."""
        said = json.dumps({"region": region, "expiration": expires, "data": secrets.token_hex(_PADDING)})
        text = base64.b64encode(said.encode()).decode()
        return f"{text}.{self._sign(text)}"

    def expiry(self, token: str, region: str) -> float | None:
        """Until when it is good in this region, or None if it is no token or one of another region."""
        text, _, signature = token.partition(".")
        if not hmac.compare_digest(signature, self._sign(text)):
            return None
        said = json.loads(base64.b64decode(text))
        return float(said["expiration"]) if said["region"] == region else None

    def _sign(self, text: str) -> str:
        return hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def give(mint: Mint) -> None:
    """Let moto's ECR give such tokens; its own are all the same, and ended in 2015.

    At PATH it tells which it has given, and may be told how long the next ones live.
    """
    from moto.ecr.responses import ECRResponse
    from moto.moto_api._internal.urls import url_paths

    given: list[str] = []
    life = [LIFE]
    answer: Any = ECRResponse.get_authorization_token

    def get_authorization_token(self: ECRResponse) -> Any:
        said = answer(self)
        for data in said.result["authorizationData"]:
            expires = time.time() + life[0]
            given.append(mint.make(self.region, expires))
            data["authorizationToken"] = base64.b64encode(f"AWS:{given[-1]}".encode()).decode()
            data["expiresAt"] = datetime.fromtimestamp(expires, UTC)
        return said

    def tell(request: Any, *_: object) -> tuple[int, dict[str, str], str]:
        if request.data:
            life[0] = float(request.data)
        return 200, {}, json.dumps(given)

    ECRResponse.get_authorization_token = get_authorization_token  # type: ignore[method-assign]
    url_paths[f"{{0}}{PATH}$"] = tell  # type: ignore[assignment]
