"""Lookout's own image, as `make image` builds it, on a base made of Debian's packages.

It is built once for each state of what it is made of, and kept in the cache as `docker save` has it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed import debian
from testbed.engine import PrivateEngine

REPOSITORY = Path(__file__).parents[2]
#: What the image is made of.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src", "docker/Dockerfile", "docker/image")
TOOLS = ("Makefile", ".dockerignore")
ITSELF = "docker/testbed/product.py"
PINS = ("docker/image/requirements.txt", "docker/image/build.txt")

#: The suite whose Python is that of the Dockerfile's own base image.
SUITE = "trixie"
PACKAGES = "python3,python3-venv,ca-certificates"
UNREAD = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)
CHANGES = ("ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", 'CMD ["python"]')

BASE = "lookout-test-base:1"
REFERENCE = "lookout-test-product:1"


class BuildFailed(Exception):
    """The image cannot be built; says why."""


def have(engine: PrivateEngine) -> str:
    """Let an engine have the image, and its base as BASE; returns the image's reference."""
    if not engine.docker("images", "--quiet", REFERENCE):
        engine.load(archive())
    return REFERENCE


def archive() -> Path:
    """What `docker save` has made of the image and its base; built if it was not yet."""
    folder = debian.cache() / "product"
    folder.mkdir(parents=True, exist_ok=True)
    with debian.locked(folder / "lock"):
        saved = folder / f"image-{_digest(*SOURCES, *TOOLS, ITSELF)}.tar"
        if not saved.exists():
            for outdated in folder.glob("image-*"):
                outdated.unlink()
            with tempfile.TemporaryDirectory(prefix="lookout-image-") as directory:
                _build(Path(directory), folder, saved)
    return saved


def _build(context: Path, folder: Path, archive: Path) -> None:
    """As a person would, in a copy of the repository, on an engine of its own without any network."""
    for name in (*SOURCES, *TOOLS):
        _copy(REPOSITORY / name, context / name)
    _copy(_wheels(context, folder), context / "wheels")
    with PrivateEngine() as engine:
        engine.import_image(_base(folder).read_bytes(), BASE, CHANGES)
        flags = f"--network=none --build-arg=BASE_IMAGE={BASE}"
        _make(context, "image", DOCKER=engine.command, IMAGE=REFERENCE, BUILD_FLAGS=flags)
        partial = archive.with_suffix(".partial")
        engine.docker("save", f"--output={partial}", BASE, REFERENCE)
        partial.rename(archive)


def _wheels(context: Path, folder: Path) -> Path:
    wheels = folder / f"wheels-{_digest(*PINS)}"
    if not wheels.exists():
        for outdated in folder.glob("wheels-*"):
            shutil.rmtree(outdated)
        _make(context, "wheels", PYTHON=sys.executable)
        shutil.move(context / "wheels", wheels)
    return wheels


def _base(folder: Path) -> Path:
    """A minimal Debian with Python, as an archive of its files."""
    archive = folder / f"{SUITE}-{_digest(ITSELF)}.tar"
    if not archive.exists():
        for outdated in folder.glob(f"{SUITE}*.tar"):
            outdated.unlink()
        partial = folder / f"{SUITE}.partial.tar"
        unread = " ".join(f'"$1"/{path}' for path in UNREAD)
        debian.run(
            [
                *("perl", str(debian.unpacked().program("mmdebstrap")), "--quiet", "--mode=root"),
                *("--variant=minbase", f"--include={PACKAGES}", '--aptopt=APT::Sandbox::User "root"'),
                f'--customize-hook=rm -rf {unread}; ln -s /usr/bin/python3 "$1"/usr/local/bin/python',
                # Nor has the Dockerfile's own base image the standard library compiled.
                '--customize-hook=find "$1"/usr/lib/python3* -name "*.pyc" -delete',
                *(SUITE, str(partial), debian.source(SUITE)),
            ]
        )
        partial.rename(archive)
    return archive


def _make(context: Path, target: str, **variables: str) -> None:
    assigned = [f"{name}={value}" for name, value in variables.items()]
    result = subprocess.run(
        ["make", f"--directory={context}", target, *assigned],
        capture_output=True,
        text=True,
        env=_without_ours(os.environ),
        check=False,
    )
    if result.returncode:
        raise BuildFailed(f"make {target}: {result.stderr.strip()[-2000:]}")


def _without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """What a `make` that runs the tests tells those it starts is not for this one; nor is the person's Docker."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("MAKE", "MFLAGS", "DOCKER_", "IMAGE", "BASE_IMAGE"))
    }


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    else:
        shutil.copy(source, target)


def _digest(*names: str) -> str:
    digest = hashlib.sha256()
    for path in _files(*names):
        digest.update(f"{path.relative_to(REPOSITORY)}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(*names: str) -> Iterator[Path]:
    for name in names:
        path = REPOSITORY / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file
