"""Images for several platforms under one tag, as a registry holds them; all run on this machine."""

import hashlib
import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPMessage
from typing import Any

from testbed.sandbox import Sandbox

Json = dict[str, Any]

INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"


def push_index(sandbox: Sandbox, reference: str, images: Mapping[str, str], *, oci: bool = False) -> str:
    """Push an index of images, by platform ("linux/arm/v7"), and return its digest.

    The images are tags in the reference's own repository, which is in a registry of the sandbox that is
    open to all. They enter the index as if they were built for those platforms, whatever they were.
    """
    name, _, tag = reference.rpartition(":")
    repository = _Repository(sandbox, name)
    manifests = [repository.label(image, _platform(platform)) for platform, image in images.items()]
    kind = OCI_INDEX if oci else INDEX
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}
    return str(repository.put_manifest(tag, index)["digest"])


def push_for(sandbox: Sandbox, reference: str, image: str, platform: str) -> str:
    """Push a tag of the same repository as if it were built for this platform, and return its digest."""
    name, _, tag = reference.rpartition(":")
    return str(_Repository(sandbox, name).label(image, _platform(platform), tag)["digest"])


class _Repository:
    """A repository of a registry, by the registry's own API."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        self._sandbox = sandbox
        self._host, _, path = name.partition("/")
        self._path = f"/v2/{path}"

    def label(self, tag: str, platform: Mapping[str, str], new_tag: str = "") -> Json:
        """Put an image of this platform, made of another; returns its entry in an index."""
        manifest = json.loads(self._call("GET", f"/manifests/{tag}")[1])
        config = json.loads(self._call("GET", f"/blobs/{manifest['config']['digest']}")[1])
        config.pop("variant", None)
        manifest["config"] |= self._put_blob(json.dumps(config | platform).encode())
        return {**self.put_manifest(new_tag, manifest), "platform": platform}

    def put_manifest(self, tag: str, manifest: Json) -> Json:
        """Put a manifest, under its digest alone if there is no tag; returns what points to it."""
        body = json.dumps(manifest).encode()
        digest = _digest(body)
        kind = manifest["mediaType"]
        self._call("PUT", f"/manifests/{tag or digest}", body, {"Content-Type": kind})
        return {"mediaType": kind, "size": len(body), "digest": digest}

    def _put_blob(self, body: bytes) -> Json:
        headers, _ = self._call("POST", "/blobs/uploads/")
        place = headers["Location"].partition(self._path)[2]
        self._call("PUT", f"{place}&digest={_digest(body)}", body)
        return {"size": len(body), "digest": _digest(body)}

    def _call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[HTTPMessage, bytes]:
        def call() -> tuple[HTTPMessage, bytes]:
            with closing(http.client.HTTPConnection(self._host)) as connection:
                accept = {"Accept": f"{IMAGE}, {OCI_IMAGE}"}
                connection.request(method, self._path + path, body, {**accept, **(headers or {})})
                answer = connection.getresponse()
                said = answer.read()
                assert answer.status < HTTPStatus.BAD_REQUEST, f"{method} {path}: {said.decode()}"
                return answer.headers, said

        return self._sandbox.call(call)


def _platform(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
