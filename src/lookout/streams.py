"""The two formats in which the engine sends and takes bytes: frames of a log, and tar archives."""

import io
import tarfile
from collections.abc import Iterator

_FRAME_HEADER = 8


def below(folder: str, archive: bytes) -> bytes:
    """The archive, whose names begin with the last part of the path, with names from the root on."""
    moved = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as source, tarfile.open(fileobj=moved, mode="w") as target:
        for member in source:
            content = source.extractfile(member) if member.isreg() else None
            member.name = f"{folder}/{member.name}".lstrip("/")
            target.addfile(member, content)
    return moved.getvalue()


def frames(raw: bytes) -> Iterator[bytes]:
    """Without a terminal the engine sends frames: stream, three zeros, length in four bytes, text."""
    while len(raw) > _FRAME_HEADER:
        end = _FRAME_HEADER + int.from_bytes(raw[4:_FRAME_HEADER])
        yield raw[_FRAME_HEADER:end]
        raw = raw[end:]
