"""Debian packages unpacked into a folder; nothing is installed on the machine."""

import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ETC_APT = Path("/etc/apt")
BASE_SUITE = "bookworm"
PACKAGES = {
    # Newer suites' runc and tini need a newer C library, so these and the rest come from here always.
    BASE_SUITE: (
        *("docker.io", "containerd", "runc", "tini", "docker-registry", "busybox-static", "iptables"),
        *("haproxy", "libopentracing-c-wrapper0", "libopentracing1"),
        *("liblua5.3-0", "libpcre2-8-0", "libssl3", "libcrypt1"),
        *("libdevmapper1.02.1", "libseccomp2", "libsystemd0", "libudev1"),
        *("libip4tc2", "libip6tc2", "libxtables12", "libmnl0", "libnftnl11"),
        *("libnfnetlink0", "libnetfilter-conntrack3", "mmdebstrap"),
    ),
    "trixie": ("docker.io", "docker-cli", "docker-compose", "containerd"),
    "forky": ("docker.io", "docker-cli", "docker-compose", "containerd"),
}


class Unavailable(Exception):
    """A part of the test bed cannot be had on this machine; says why, and the next step."""


@dataclass(frozen=True)
class Packages:
    """Unpacked packages: of one suite, then those of the base suite."""

    roots: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """The variables with which the unpacked programs find each other and their libraries.

        Go's programs clear their memory up less often with them, and so cost less time to start.
        """
        folders = ("usr/sbin", "usr/bin", "sbin", "bin")
        programs = [str(root / folder) for root in self.roots for folder in folders]
        libraries = [path for root in self.roots for path in sorted(root.glob("usr/lib/*-linux-gnu"))]
        libraries += [path for root in self.roots for path in sorted(root.glob("lib/*-linux-gnu"))]
        return {
            "PATH": os.pathsep.join([*programs, "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "XTABLES_LIBDIR": os.pathsep.join(str(path / "xtables") for path in libraries),
            "GOGC": "400",
        }

    def program(self, name: str) -> Path:
        """The path of an unpacked program."""
        found = shutil.which(name, path=self.environment()["PATH"])
        if found is None:
            raise Unavailable(f"Debian's packages hold no {name}; add the package that does")
        return Path(found)


def cache() -> Path:
    """Where downloads are kept: $LOOKOUT_CACHE, or .cache in the repository."""
    return Path(os.environ.get("LOOKOUT_CACHE") or Path(__file__).parents[2] / ".cache")


def unpacked(suite: str = BASE_SUITE) -> Packages:
    """The packages of a suite, downloaded on first use; at most one process downloads at a time."""
    if suite not in PACKAGES:
        raise Unavailable(f"no suite {suite!r} is known; choose one of {', '.join(PACKAGES)}")
    suites = (suite,) if suite == BASE_SUITE else (suite, BASE_SUITE)
    return Packages(tuple(_unpacked_once(one) for one in suites))


def _unpacked_once(suite: str) -> Path:
    folder = cache() / "debian" / suite
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not _is_current(folder, suite):
            _unpack_into(folder, suite)
    return folder


def _is_current(folder: Path, suite: str) -> bool:
    stamp = folder / "packages"
    return stamp.is_file() and stamp.read_text().split() == list(PACKAGES[suite])


def source(suite: str) -> str:
    """A suite of the machine's own mirror, as a line of sources.list."""
    _require_debian()
    return _machine_source().format(suite=suite)


def _unpack_into(folder: Path, suite: str) -> None:
    line = source(suite)
    for aborted in folder.parent.glob(f"{suite}-*"):
        shutil.rmtree(aborted, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{suite}-", dir=folder.parent) as directory:
        root = Path(directory, "root")
        for package in _Apt(Path(directory), line).download(PACKAGES[suite]):
            run(["dpkg-deb", "--extract", str(package), str(root)])
        if (root / "usr/sbin/xtables-nft-multi").exists():
            # Debian makes these links when it installs the package.
            for name in ("iptables", "ip6tables"):
                (root / "usr/sbin" / name).symlink_to("xtables-nft-multi")
        (root / "packages").write_text("\n".join(PACKAGES[suite]))
        shutil.rmtree(folder, ignore_errors=True)
        root.rename(folder)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the kernel gives it back when its holder dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Apt:
    """apt with a state of its own, beside the machine's."""

    def __init__(self, directory: Path, source: str) -> None:
        self._directory = directory
        for folder in ("lists/partial", "cache/archives/partial", "etc"):
            (directory / folder).mkdir(parents=True)
        (directory / "status").touch()
        (directory / "etc/sources.list").write_text(source + "\n")

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Fetch the packages, without what they depend on."""
        self._apt_get("update")
        self._apt_get("download", *packages)
        return sorted(self._directory.glob("*.deb"))

    def _apt_get(self, *arguments: str) -> None:
        options = {
            "Dir::State": self._directory,
            "Dir::State::status": self._directory / "status",
            "Dir::State::lists": self._directory / "lists",
            "Dir::Cache": self._directory / "cache",
            "Dir::Etc::sourcelist": self._directory / "etc/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
            "APT::Update::Error-Mode": "any",
            # apt's own user may not write here.
            "APT::Sandbox::User": "root",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        run(["apt-get", "-qq", *flags, *arguments], cwd=self._directory)


def _require_debian() -> None:
    if platform.system() != "Linux" or not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable(
            "Debian packages need a Debian machine with apt; use one, or set DOCKER_HOST for the demo"
        )


def _machine_source() -> str:
    """The machine's own Debian source as one sources.list line, with {suite} for the suite."""
    for path in sorted([ETC_APT / "sources.list", *(ETC_APT / "sources.list.d").glob("*")]):
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        read = _classic_source if path.suffix == ".list" else _deb822_source
        if source := read(path.read_text()):
            return source
    raise Unavailable("no Debian mirror is configured under /etc/apt; add the one you use")


def _release_names() -> set[str]:
    release = platform.freedesktop_os_release()
    return {release.get("VERSION_CODENAME", "stable"), "stable", "testing", "unstable", "sid"}


def _deb822_source(text: str) -> str | None:
    for paragraph in text.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
        fields = dict(line.split(":", 1) for line in lines if ":" in line and line[0] != " ")
        fields = {name.lower(): value.strip() for name, value in fields.items()}
        if fields.get("enabled", "yes") == "no" or "deb" not in fields.get("types", "").split():
            continue
        if _release_names() & set(fields.get("suites", "").split()):
            keyring = fields.get("signed-by", "")
            option = f"[signed-by={keyring}] " if keyring.startswith("/") else ""
            return f"deb {option}{fields['uris'].split()[0]} {{suite}} main"
    return None


def _classic_source(text: str) -> str | None:
    for line in text.splitlines():
        words = line.split("#")[0].split()
        # Options may hold blanks: deb [arch=amd64 signed-by=/path] URI suite component...
        start = next((i + 1 for i, word in enumerate(words) if word.endswith("]")), 1)
        if words[:1] == ["deb"] and words[start + 1 : start + 2] and words[start + 1] in _release_names():
            return " ".join([*words[: start + 1], "{suite}", "main"])
    return None


def run(command: Sequence[str], cwd: Path | None = None) -> None:
    """Run a program that needs the machine's mirror; raises Unavailable with what it said."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Unavailable(
            f"{command[0]} failed, so Debian's packages cannot be had; "
            f"check the machine's mirror and network: {result.stderr.strip()[-500:]}"
        )
