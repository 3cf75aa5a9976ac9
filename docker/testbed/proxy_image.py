"""An image of Debian's HAProxy, laid out as Docker's official one is."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from testbed.debian import unpacked
from testbed.engine import Engine
from testbed.images import make_image

CONFIGURATION = "/usr/local/etc/haproxy/haproxy.cfg"
USER = 99
LIBRARIES = "/usr/lib/haproxy"


def make_proxy_image(engine: Engine, reference: str) -> None:
    """Make the image; it runs the configuration that is mounted there, as a user of its own."""
    changes = [
        f"ENV LD_LIBRARY_PATH={LIBRARIES}",
        f"USER {USER}",
        "STOPSIGNAL SIGUSR1",
        f'CMD ["/usr/local/sbin/haproxy", "-W", "-db", "-f", "{CONFIGURATION}"]',
    ]
    make_image(engine, reference, changes=changes, files=dict(_files()))


def _files() -> Iterator[tuple[str, bytes]]:
    """The program, and what it is linked to, as this machine has it where Debian's packages are silent."""
    packages = unpacked()
    program = packages.program("haproxy")
    linked = subprocess.run(
        ["ldd", program], env=packages.environment(), capture_output=True, text=True, check=True
    )
    yield "/usr/local/sbin/haproxy", program.read_bytes()
    for name, path in re.findall(r"(\S+) => (/\S+)", linked.stdout):
        yield f"{LIBRARIES}/{name}", Path(path).read_bytes()
    for loader in re.findall(r"^\s*(/\S+) \(", linked.stdout, re.MULTILINE):
        yield loader, Path(loader).read_bytes()
