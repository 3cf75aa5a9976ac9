"""Images for the demo, of Debian's packages where there are any, else of well-known images."""

import json
import platform
import re
import subprocess
import tempfile
from pathlib import Path

from testbed.debian import Unavailable, unpacked
from testbed.engine import DockerFailed, Engine
from testbed.images import make_image

REGISTRY_IMAGE = "registry:2"
BUSYBOX_IMAGE = "busybox:musl"  # static, as an image without libraries needs it
REGISTRY_PORT = 5000
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Parts:
    """What images are made of; `pulled` are the images that were fetched for it."""

    def __init__(self, engine: Engine) -> None:
        self.pulled: list[str] = []
        self._engine = engine
        self._has_debian = self._suits_debian()
        self._busybox = self._find_busybox()

    def make_application(self, reference: str, *changes: str) -> None:
        """Make an application that answers with the reference's tag."""
        make_image(self._engine, reference, changes=changes, busybox=self._busybox)

    def make_registry(self, reference: str, label: str) -> str:
        """Return the image of a registry that listens on REGISTRY_PORT, made under this name if need be."""
        if not self._has_debian:
            return self._have(REGISTRY_IMAGE)
        program = unpacked().program("docker-registry")
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        configuration = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": "/images"}},
            "http": {"addr": f":{REGISTRY_PORT}"},
        }
        make_image(
            self._engine,
            reference,
            changes=[f"LABEL {label}", 'CMD ["/bin/docker-registry", "serve", "/etc/registry.json"]'],
            files={
                "/bin/docker-registry": program.read_bytes(),
                "/etc/registry.json": json.dumps(configuration).encode(),
                **{path: Path(path).read_bytes() for path in re.findall(r"(/\S+) \(0x", libraries)},
            },
        )
        return reference

    def _suits_debian(self) -> bool:
        """Whether this machine has Debian's packages, and they run on the engine's."""
        try:
            unpacked()
        except Unavailable:
            return False
        engine = self._engine.docker("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}")
        return engine == f"linux/{ARCHITECTURES.get(platform.machine())}"

    def _find_busybox(self) -> bytes:
        if self._has_debian:
            return unpacked().program("busybox").read_bytes()
        container = self._engine.docker("create", self._have(BUSYBOX_IMAGE))
        with tempfile.TemporaryDirectory() as directory:
            self._engine.docker("cp", f"{container}:/bin/busybox", directory)
            self._engine.docker("rm", container)
            return Path(directory, "busybox").read_bytes()

    def _have(self, image: str) -> str:
        try:
            self._engine.docker("image", "inspect", image)
        except DockerFailed:
            self._engine.docker("pull", image)
            self.pulled.append(image)
        return image
