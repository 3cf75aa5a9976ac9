"""The end of servers of asyncio that have clients to the last moment."""

import asyncio

ARRIVAL = 0.01  # seconds: who was taken a moment ago is known a few turns of the loop later


async def close(server: asyncio.Server) -> None:
    """Take nobody any more, then close.

    Closed at once, a server forgets whom it has just taken, and never ends that line.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    await asyncio.sleep(ARRIVAL)
    server.close()
