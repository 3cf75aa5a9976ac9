"""The daemon's settings, read by a process of its own.

What reads them takes ten megabytes, a sixth of all that Lookout would have, and is used once. So a process
is forked that reads them, tells them, and ends, while this one goes on with its start.
"""

import os
import pickle
from contextlib import suppress
from typing import Any

from lookout.chosen import Settings
from lookout.errors import WrongSettings


class Reading:
    """Begins at once, so that the caller can do something else meanwhile.

    It has to begin before there are threads, since a fork takes along only one.
    """

    def __init__(self) -> None:
        ours, its = os.pipe()
        self._told_at = ours
        self._child = _fork()
        if self._child == 0:
            os.close(ours)
            _tell(its)
        os.close(its)

    def settings(self) -> Settings:
        """What `settings.load` gives, with all that it does to the environment; raises WrongSettings as it does."""
        with os.fdopen(self._told_at, "rb") as pipe:
            told = pipe.read()
        if self._child:
            with suppress(ChildProcessError):  # where SIGCHLD is ignored, the kernel has done it
                os.waitpid(self._child, 0)
        try:
            values, wrong, environment = pickle.loads(told)  # noqa: S301  nobody else writes into that pipe
        except (EOFError, pickle.UnpicklingError):
            # It has ended before it had told all. What was wrong there is wrong here and seen.
            from lookout import settings

            return settings.load()
        if wrong:
            raise WrongSettings(wrong)
        _set_environment(environment)
        found = Settings()
        vars(found).update(values)
        return found


def _fork() -> int | None:
    """None where there can be no further process."""
    try:
        return os.fork()
    except OSError:
        return None


def _tell(pipe: int) -> None:
    """Be the process that reads; never returns, nor does anything of its parent's that an end would do."""
    try:
        told = pickle.dumps(_read())
        with os.fdopen(pipe, "wb") as file:
            file.write(told)
    finally:
        os._exit(0)


def _read() -> tuple[dict[str, Any], list[str], dict[str, str]]:
    from lookout import settings

    try:
        found = settings.load()
    except WrongSettings as exc:
        return {}, exc.lines, {}
    return vars(found), [], dict(os.environ)


def _set_environment(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
