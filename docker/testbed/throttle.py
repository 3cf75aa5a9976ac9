"""A slow or breaking line to a registry; the module run as a program is the line itself."""

import argparse
import asyncio
import contextlib
import subprocess
from typing import Self

from testbed import module
from testbed.sandbox import Sandbox, end

CHUNK = 64 * 1024
SLICES_PER_SECOND = 20


class Throttle:
    """A proxy at 127.0.0.1:`port` of the sandbox to 127.0.0.1:`target` there.

    What comes from the target is slowed to `rate` bytes a second in all, or broken off once `cut_after`
    bytes have come. An image pushed to the target and named by this host is then a slow pull.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        port: int,
        target: int,
        *,
        rate: int | None = None,
        cut_after: int | None = None,
    ) -> None:
        self.host = f"127.0.0.1:{port}"
        self._sandbox = sandbox
        self._port = port
        limits = {"--rate": rate, "--cut-after": cut_after}
        self._arguments = [str(port), str(target)] + [
            f"{name}={value}" for name, value in limits.items() if value is not None
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = self._sandbox.popen(
            module.command("testbed.throttle", *self._arguments), env=module.ENVIRONMENT
        )
        self._sandbox.wait_for_port(self._port, self._process)

    def stop(self) -> None:
        """Stop, cutting what is under way. Harmless when it is stopped already."""
        if self._process:
            end(self._process)


class _Line:
    """The proxy itself, with what all its connections share."""

    def __init__(self, target: int, rate: int | None, cut_after: int | None) -> None:
        self._target = target
        self._rate = rate
        self._cut_after = cut_after
        self._sent = 0
        self._pace = asyncio.Lock()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await asyncio.gather(_copy(reader, to_target), self._copy_slowly(from_target, writer))
            finally:
                to_target.close()
        writer.close()

    async def _copy_slowly(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunk = min(CHUNK, max(1, self._rate // SLICES_PER_SECOND)) if self._rate else CHUNK
        while data := await reader.read(chunk):
            self._sent += len(data)
            if self._cut_after is not None and self._sent > self._cut_after:
                writer.transport.abort()
                raise ConnectionAbortedError
            if self._rate:
                # One slice at a time, so that parallel connections share the rate.
                async with self._pace:
                    await asyncio.sleep(len(data) / self._rate)
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _serve(port: int, line: _Line) -> None:
    server = await asyncio.start_server(line.connect, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m testbed.throttle", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("target", type=int)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--cut-after", type=int)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, _Line(options.target, options.rate, options.cut_after)))


if __name__ == "__main__":
    main()
