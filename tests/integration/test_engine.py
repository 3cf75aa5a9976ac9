"""The engine's border: versions, errors, streams, and who we are."""

import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import json
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lookout.engine import Engine
from lookout.engine_api import DEFAULT_SOCKET
from lookout.errors import EngineError, EngineUnavailable, NotFound, WrongSettings
from lookout.identity import own_id
from lookout.model import ImageName, ImageRef, Json
from testbed.engine import PrivateEngine
from testbed.faultproxy import FaultProxy
from tests.integration.conftest import AppImage, MakeContainer


@pytest.fixture
async def connection(engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    monkeypatch.setenv("DOCKER_HOST", engine.docker_host)
    async with Engine.connect() as connected:
        yield connected


#: The default one has two names.
SOCKETS = (DEFAULT_SOCKET, DEFAULT_SOCKET.replace("/var", ""))


def ref(reference: str) -> ImageRef:
    name, _, tag = reference.rpartition(":")
    return ImageRef(ImageName.parse(name), tag)


def ignore(_: Json) -> None:
    pass


# One version of the API


@contextlib.asynccontextmanager
async def serving(answer: Json | web.Response, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that answers as an engine of these versions, or just so; gives its port on the loopback."""

    async def version(_: web.Request) -> web.Response:
        return answer if isinstance(answer, web.Response) else web.json_response(answer)

    app = web.Application()
    app.router.add_get("/version", version)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        pytest.param("1.41", "1.12", (1, 41), id="an old engine: its own"),
        pytest.param("1.51", "1.24", (1, 51), id="the newest that tells configured addresses"),
        pytest.param("1.55", "1.44", (1, 51), id="a newer engine: still that one"),
        pytest.param("1.99", "1.60", (1, 60), id="an engine that has forgotten it: its oldest"),
        pytest.param("1.9", "1.2", (1, 9), id="versions are numbers, not text"),
    ],
)
async def test_one_api_version_is_spoken(
    newest: str, oldest: str, spoken: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving({"ApiVersion": newest, "MinAPIVersion": oldest}) as port:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
        async with Engine.connect() as connected:
            assert await connected.api() == spoken


@pytest.mark.parametrize(
    ("text", "status"),
    [("<html>", 200), ("[]", 200), ("{}", 200), ('{"ApiVersion": "x"}', 200), ("<html>", 503)],
)
async def test_what_answers_like_no_engine_is_an_engine_that_is_away(
    text: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy whose engine is gone answers in its own words."""
    kind = "text/html" if text.startswith("<") else "application/json"
    async with serving(web.Response(text=text, status=status, content_type=kind)) as port:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://user:hunter2@127.0.0.1:{port}")
        async with Engine.connect() as connected:
            with pytest.raises(EngineUnavailable) as caught:
                await connected.api()
            assert "hunter2" not in f"{caught.value} {connected.address}"


async def test_a_ping_that_fails_lets_other_calls_go_on_as_before(
    engine: PrivateEngine, line: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", line.docker_host)
    async with Engine.connect() as connected:
        await connected.info()
        line.hang("GET /_ping")
        with pytest.raises(EngineUnavailable):
            await connected.ping(within=0.2)
        line.answer("GET /_ping", 503)
        with pytest.raises(EngineUnavailable):
            await connected.ping(within=5)
        line.requests.clear()
        await connected.info()
        assert [request for request in line.requests if "/version" in request] == []
        line.answer("/info", 503)
        with pytest.raises(EngineUnavailable):
            await connected.info()
        await connected.info()
        assert len([request for request in line.requests if "/version" in request]) == 1


async def test_the_tls_variables_are_those_of_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = _certificates(tmp_path)
    async with serving({"ApiVersion": "1.41"}, server) as port:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        async with Engine.connect() as plain:
            with pytest.raises(EngineUnavailable):
                await plain.api()
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        async with Engine.connect() as encrypted:
            assert await encrypted.api() == (1, 41)


def _certificates(folder: Path) -> ssl.SSLContext:
    """An authority with a certificate for 127.0.0.1 and for a client; the server asks for the client's."""
    authority_key, authority = _issue(folder, "ca", None)
    for who in ("server", "client"):
        _issue(folder, who, (authority_key, authority))
    (folder / "client.pem").rename(folder / "cert.pem")
    (folder / "client-key.pem").rename(folder / "key.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


Issuer = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


def _issue(folder: Path, who: str, issuer: Issuer | None) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, who)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[1].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(issuer[0] if issuer else key, hashes.SHA256())
    (folder / f"{who}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{who}-key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return key, certificate


@pytest.mark.parametrize("host", ["pigeon", "ftp://engine", "npipe:////./pipe/x", "tcp://", "tcp://a:port"])
async def test_an_address_that_is_none_is_a_wrong_setting(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(WrongSettings, match="DOCKER_HOST"):
        async with Engine.connect():
            pass


async def test_a_socket_that_is_not_there_yet_is_an_engine_that_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    async with Engine.connect() as connected:
        with pytest.raises(EngineUnavailable, match="tell its version"):
            await connected.api()


@pytest.mark.parametrize("text", ["{", "[]", '{"currentContext": "laptop"}', '{"auths": {}}'])
async def test_a_config_that_is_there_for_its_logins_leads_to_no_other_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(text)
    async with Engine.connect() as connected:
        assert connected.address in SOCKETS


@pytest.mark.parametrize("is_here", [False, True])
async def test_the_current_context_is_followed_where_its_socket_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_here: bool
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / ".docker" / "contexts" / "meta" / hashlib.sha256(b"laptop").hexdigest()
    place.mkdir(parents=True)
    path = tmp_path / "engine.sock"
    host = {"Host": f"unix://{path}"}
    (place / "meta.json").write_text(json.dumps({"Name": "laptop", "Endpoints": {"docker": host}}))
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "laptop"}')
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        if is_here:
            listening.bind(str(path))
        async with Engine.connect() as connected:
            assert connected.address in ((f"unix://{path}",) if is_here else SOCKETS)


# What goes wrong


@pytest.mark.engine
async def test_what_does_not_exist_is_not_found(connection: Engine) -> None:
    with pytest.raises(NotFound, match="refused to inspect container nobody"):
        await connection.container("nobody")


@pytest.mark.engine
async def test_a_stream_that_is_cut_in_mid_pull_is_not_taken_for_a_pull(
    engine: PrivateEngine, app_image: AppImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = app_image("1")
    engine.docker("rmi", image)
    with FaultProxy(engine.socket, engine.directory / f"{secrets.token_hex(4)}.sock") as line:
        monkeypatch.setenv("DOCKER_HOST", line.docker_host)
        async with Engine.connect() as connected:
            line.cut(r"POST .*/images/create", when="after")
            with pytest.raises(EngineUnavailable):
                await connected.pull(ref(image), None, None, ignore)
            await connected.pull(ref(image), None, None, ignore)


@pytest.mark.engine
async def test_an_error_inside_the_pull_stream_is_an_error(
    engine: PrivateEngine, app_image: AppImage, connection: Engine
) -> None:
    """The registry knows the manifest, and has lost the layer: the engine's answer begins with 200."""
    image = app_image("1", ballast=100_000)
    engine.docker("rmi", image)
    blobs = engine.directory / "registry-5000" / "images" / "docker" / "registry" / "v2" / "blobs"
    large = [blob for blob in blobs.rglob("data") if blob.stat().st_size > 100_000]
    kept = {blob: blob.read_bytes() for blob in large}
    try:
        for blob in large:
            blob.write_bytes(b"")
        with pytest.raises(EngineError, match="refused to pull"):
            await connection.pull(ref(image), None, None, ignore)
    finally:
        for blob, content in kept.items():
            blob.write_bytes(content)


@pytest.mark.engine
@pytest.mark.parametrize("flags", [(), ("--tty",)], ids=["frames", "terminal"])
async def test_the_log_tail_is_what_the_container_wrote(
    connection: Engine, app_image: AppImage, make_container: MakeContainer, flags: tuple[str, ...]
) -> None:
    loud = app_image("1", changes=['CMD ["sh", "-c", "seq 1 99; echo last; sleep 100"]'])
    name = make_container(loud, "api", *flags)
    async with asyncio.timeout(10):
        while "last" not in (tail := await connection.log_tail(name)):
            await asyncio.sleep(0.1)
    assert tail.replace("\r", "").splitlines() == [*map(str, range(51, 100)), "last"]


@pytest.mark.engine
def test_a_process_in_a_container_knows_which_one(
    engine: PrivateEngine, app_image: AppImage, make_container: MakeContainer, tmp_path: Path
) -> None:
    name = make_container(app_image("1"), "api")
    (tmp_path / "mountinfo").write_text(engine.docker("exec", name, "cat", "/proc/self/mountinfo"))
    identity = json.loads(engine.docker("inspect", name))[0]["Id"]
    assert own_id(tmp_path / "mountinfo") == identity
