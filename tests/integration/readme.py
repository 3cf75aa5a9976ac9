"""What the README tells people to type, and a machine to type it on."""

import os
import re
from pathlib import Path

from testbed.debian import unpacked
from testbed.engine import PrivateEngine

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMPOSE_SUITE = "forky"  # which has the newer Compose of the two


def block(heading: str, language: str, number: int = 0) -> str:
    """The number-th block of code in this language below a heading."""
    section = re.split(r"\n##+ ", README.partition(f"# {heading}\n")[2])[0]
    return str(re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[number])


class Shell:
    """Runs lines of the README on an engine's machine, in a folder, with Docker and Compose as people have them."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        packages = unpacked(COMPOSE_SUITE)
        plugins = folder / ".docker" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(packages.program("docker-compose"))
        self.folder = folder
        self._engine = engine
        docker = unpacked(engine.suite).program("docker").parent
        self._environment = {"PATH": f"{docker}:{os.defpath}", "HOME": str(folder)}

    def run(self, lines: str) -> str:
        """What they print; raises if one of them fails."""
        return self._engine.sandbox.run(["sh", "-ec", f"cd {self.folder}\n{lines}"], env=self._environment)
