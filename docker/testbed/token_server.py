"""A server of tokens for registries that want one, as the public ones do."""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from testbed.inner_server import InnerServer, user_of
from testbed.sandbox import Sandbox

NAME = "testbed"  # of the issuer of the tokens, and of the service that they are for
LIFE = 300  # seconds
_SIZE = 32  # bytes of each half of a signature

Json = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """What came: of whom it is, and what it wants ("repository:acme/api:pull")."""

    user: tuple[str, str] | None
    identity: str
    scope: str


class TokenServer(InnerServer):
    """Gives a token to those among `users` who say their password, and to those with an identity token.

    `identities` has the users by their identity tokens. Others are answered with `refusal`, a status; if
    that is 200, with a token that allows nothing. All three may be changed at any time, and `shown` is
    what came, in order.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        at: int | str,
        users: Mapping[str, str],
        *,
        identities: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(sandbox, at)
        self.users = dict(users)
        self.identities = dict(identities or {})
        self.refusal = 401
        self.shown: list[Shown] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _self_signed(self._key)

    def configuration(self, folder: Path) -> Json:
        """What a registry must know to take the tokens; the certificate is written to the folder."""
        bundle = folder / "tokens.pem"
        bundle.write_bytes(self._certificate.public_bytes(Encoding.PEM))
        realm = f"http://{self.host}/token"
        return {"realm": realm, "service": NAME, "issuer": NAME, "rootcertbundle": str(bundle)}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        form = {**request.query, **{key: str(value) for key, value in (await request.post()).items()}}
        user = user_of(request.headers.get("Authorization", ""))
        if form.get("grant_type") == "password":
            user = form.get("username", ""), form.get("password", "")
        shown = Shown(user, form.get("refresh_token", ""), form.get("scope", ""))
        self.shown.append(shown)
        name = self._name(shown)
        if not name and self.refusal != 200:
            return web.json_response({"details": "incorrect username or password"}, status=self.refusal)
        token = self._token(name, shown.scope if name else "")
        answer = {"token": token, "access_token": token, "expires_in": LIFE}
        if shown.identity:
            answer |= {"refresh_token": shown.identity, "scope": shown.scope}
        return web.json_response(answer)

    def _name(self, shown: Shown) -> str:
        """The user that it is, or nothing."""
        if shown.identity:
            return self.identities.get(shown.identity, "")
        name, password = shown.user or ("", "")
        return name if name in self.users and self.users[name] == password else ""

    def _token(self, name: str, scope: str) -> str:
        now = int(time.time())
        certificate = base64.b64encode(self._certificate.public_bytes(Encoding.DER)).decode()
        header = {"typ": "JWT", "alg": "ES256", "x5c": [certificate]}
        claims = {
            "iss": NAME,
            "sub": name,
            "aud": NAME,
            "jti": secrets.token_hex(8),
            "iat": now,
            "nbf": now - 10,
            "exp": now + LIFE,
            "access": [_access(part) for part in scope.split()],
        }
        text = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        halves = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(SHA256())))
        return f"{text}.{_encoded(b''.join(half.to_bytes(_SIZE, 'big') for half in halves))}"


def _access(scope: str) -> Json:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
