"""How far a pull is: what the engine tells of each layer, added up."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from lookout.model import ImageRef, Json

TELL_EVERY = 10.0  # seconds between two lines of progress in the log

ALMOST = 0.99  # of a layer at most has come, before the engine says that all has

# What Docker's image stores say of a layer, in the order in which it comes.
_WAITS = ("Pulling fs layer", "Waiting")
_COMES = "Downloading"
_IS_HERE = ("Verifying Checksum", "Download complete", "Extracting")
_IS_DONE = ("Pull complete", "Already exists")
_DIGEST = "Digest: "

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Progress:
    """One moment of a pull. Layers and their sizes become known one by one, so the totals may grow."""

    layers: int = 0
    layers_done: int = 0  # on the engine, unpacked
    bytes: int = 0  # downloaded
    bytes_total: int = 0  # as far as known
    percent: int = 0  # of the download; it goes back where a layer is fetched anew


Watch = Callable[[Progress], None]


@dataclass
class _Layer:
    state: str = _WAITS[0]
    current: int = 0
    total: int = 0

    @property
    def is_done(self) -> bool:
        return self.state in _IS_DONE

    @property
    def is_here(self) -> bool:
        return self.is_done or self.state in _IS_HERE

    @property
    def part(self) -> float:
        """How much of it has come, from 0 to 1."""
        if self.is_here:
            return 1.0
        return min(ALMOST, self.current / self.total) if self.total else 0.0


class Layers:
    """Reads the lines of a pull, and knows when there was news.

    Some image stores repeat themselves many times a second while nothing comes: only what differs counts.
    """

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}
        self._last: dict[str, object] = {}
        self.digest = ""  # that the engine says it has pulled

    @property
    def is_unpacking(self) -> bool:
        """Whether all has come, and something is still being unpacked: the disk's turn, not the registry's."""
        layers = self._layers.values()
        return all(layer.is_here for layer in layers) and not all(layer.is_done for layer in layers)

    def read(self, line: Json) -> bool:
        """Take one line in; whether it says anything new."""
        key, status = str(line.get("id") or ""), str(line.get("status") or "")
        detail = line.get("progressDetail") or {}
        news = (status, detail.get("current"), detail.get("total"))
        if self._last.get(key) == news:
            return False
        self._last[key] = news
        if status.startswith(_DIGEST):
            self.digest = status.removeprefix(_DIGEST).strip()
        if status in (*_WAITS, _COMES, *_IS_HERE, *_IS_DONE):
            self._note(self._layers.setdefault(key, _Layer()), status, detail)
        return True

    def _note(self, layer: _Layer, status: str, detail: Json) -> None:
        layer.state = status
        if status == _COMES:
            current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
            layer.total = max(layer.total, total)
            layer.current = layer.total - total + current  # where a cut layer goes on, its rest is told
        elif layer.is_here:
            layer.current = layer.total

    def progress(self) -> Progress:
        layers = [*self._layers.values()]
        parts = sum(layer.part for layer in layers) / len(layers) if layers else 0.0
        return Progress(
            layers=len(layers),
            layers_done=sum(layer.is_done for layer in layers),
            bytes=sum(layer.current for layer in layers),
            bytes_total=sum(layer.total for layer in layers),
            percent=int(100 * parts),
        )


class ProgressLog:
    """Progress for people: a line now and then, and at debug level whenever there is more to say."""

    def __init__(self, image: ImageRef) -> None:
        self._image = str(image)
        self._told = Progress()
        self._next = time.monotonic() + TELL_EVERY

    def __call__(self, progress: Progress) -> None:
        is_due = time.monotonic() >= self._next
        has_moved = (progress.percent, progress.layers_done) != (self._told.percent, self._told.layers_done)
        if not (is_due or has_moved):
            return
        say = log.info if is_due else log.debug
        say("pulling", image=self._image, **vars(progress))
        self._told = progress
        if is_due:
            self._next = time.monotonic() + TELL_EVERY
