"""Takes out of the installed packages what Lookout never reads, and compiles the rest.

Run once, with the interpreter of the virtual environment, while the image is built.
"""

import compileall
import json
import shutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import botocore

#: The services that Lookout calls, and those by which the SDK comes to credentials.
SERVICES = ("sqs", "ecr", "sts", "sso", "sso-oidc", "signin")
#: What the list of endpoints calls them.
ENDPOINTS = ("sqs", "api.ecr", "sts", "portal.sso", "oidc")
#: Of its descriptions, those that only callers of other functions need.
UNUSED = ("paginators-*", "waiters-*", "examples-*")
#: What has no use in the image: rich's highlighting of source code and Markdown, pydantic's
#: former version, what makes WebSockets faster, and the sources of compiled modules.
UNREAD = (
    *("pygments", "pygments-*", "markdown_it", "markdown_it_*", "mdurl", "mdurl-*"),
    *("pydantic/v1", "aiohttp/_websocket/*.so", "**/*.c", "**/*.h", "**/*.pyx", "**/*.pxd", "**/*.pyi"),
)
#: Of the environment's commands; others' packages bring some too.
KEPT_COMMANDS = ("python", "lookout")


def main() -> None:
    packages = Path(botocore.__file__).parents[1]
    trim_botocore(packages / "botocore" / "data")
    for pattern in UNREAD:
        for path in list(packages.glob(pattern)):
            remove(path)
    for path in Path(sys.prefix, "bin").iterdir():
        if not path.name.startswith(KEPT_COMMANDS):
            path.unlink()
    # Nothing changes there any more, so that Python need not look whether a source file is newer.
    compiled = compileall.compile_dir(
        packages, quiet=1, force=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )
    if not compiled:
        sys.exit("a package cannot be compiled")


def trim_botocore(data: Path) -> None:
    """Leave of botocore's descriptions those of SERVICES."""
    for folder in (path for path in data.iterdir() if path.is_dir()):
        if folder.name not in SERVICES:
            remove(folder)
    for pattern in UNUSED:
        for path in list(data.rglob(pattern)):
            remove(path)
    endpoints = data / "endpoints.json"
    known = json.loads(endpoints.read_text())
    for partition in known["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in ENDPOINTS if name in services}
    endpoints.write_text(json.dumps(known, separators=(",", ":")))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


if __name__ == "__main__":
    main()
