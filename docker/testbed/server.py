"""What all the servers of the test bed have in common."""

from abc import ABC, abstractmethod
from typing import Self


class Server(ABC):
    """Runs from `start` to `stop`, or for as long as a block."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start, and wait until it listens."""

    @abstractmethod
    def stop(self) -> None:
        """Stop, cutting what is under way."""
