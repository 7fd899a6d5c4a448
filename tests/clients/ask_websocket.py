"""A WebSocket client: `ask_websocket.py ADDRESS`. The handshake's headers decide who gets the connection."""
import asyncio
import sys

import websockets


async def talk(address, headers, version):
    async with websockets.connect(f"ws://{address}/chat", extra_headers=headers, max_size=None) as socket:
        assert await socket.recv() == version
        for message in ["hello", b"\x00\x01" * 500, "z" * 1_000_000]:
            await socket.send(message)
            assert await socket.recv() == message
        pong = await socket.ping()
        await asyncio.wait_for(pong, 10)
        await socket.send("bye")
        try:
            await socket.recv()
            raise AssertionError("it should have been closed")
        except websockets.ConnectionClosed as closed:
            assert (closed.code, closed.reason) == (4001, "asked to"), closed


async def main(address):
    await asyncio.gather(*(talk(address, {"end-user": "ada"}, "v2") for _ in range(5)))
    await asyncio.gather(*(talk(address, {}, "v1") for _ in range(5)))


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
