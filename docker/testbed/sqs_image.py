"""The image of an SQS server that `docker/compose.local.yml` names, made of the same wheels as upstream's."""

import platform
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from testbed import debian, product
from testbed.engine import PrivateEngine

DOCKERFILE = f"""
FROM {product.BASE}
COPY packages /opt/moto
ENV PYTHONPATH=/opt/moto
ENTRYPOINT ["python3", "-m", "moto.server", "-H", "0.0.0.0"]
"""


def have(engine: PrivateEngine) -> str:
    """Let an engine have the image under its public name, which is returned."""
    made_of = context()
    reference = f"motoserver/moto:{made_of.name}"
    if not engine.docker("images", "--quiet", reference):
        product.have(engine)  # for its base
        engine.docker("build", "--quiet", f"--tag={reference}", str(made_of))
    return reference


def context() -> Path:
    """What the image is built of, in a folder named by its version; made once, and kept in the cache."""
    requirements = _requirements()
    version = next(one for one in requirements if one.startswith("moto==")).removeprefix("moto==")
    folder = debian.cache() / "sqs-image"
    folder.mkdir(parents=True, exist_ok=True)
    context = folder / version
    with debian.locked(folder / "lock"):
        if not context.exists():
            with tempfile.TemporaryDirectory(prefix="partial-", dir=folder) as directory:
                partial = Path(directory, version)
                _install(partial / "packages", requirements)
                (partial / "Dockerfile").write_text(DOCKERFILE)
                partial.rename(context)
    return context


def _requirements() -> list[str]:
    project = tomllib.loads((product.REPOSITORY / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"]["sqs-server"])


def _install(packages: Path, requirements: list[str]) -> None:
    """For the Python of the base, and without the descriptions of all the services but one."""
    platforms = [f"--platform={kind}_{platform.machine()}" for kind in ("manylinux2014", "manylinux_2_28")]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    python = ("--only-binary=:all:", "--implementation=cp", "--python-version=3.13")
    debian.run([*pip, *python, *platforms, f"--target={packages}", *requirements])
    for service in (packages / "botocore" / "data").iterdir():
        if service.is_dir() and service.name != "sqs":
            shutil.rmtree(service)
