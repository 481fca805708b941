"""A TCP load balancer: one port in front of the nodes of a domain, each connection to the next one."""

import asyncio
import itertools
import threading

CHUNK = 65_536


async def copy(reader, writer):
    """Passes on what one side says, and that it has ended."""
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        # A side that is gone: so is the other one for it.
        writer.transport.abort()


async def serve(ports, told):
    turns = itertools.count()

    async def accept(reader, writer):
        first = next(turns)
        for port in (ports[(first + step) % len(ports)] for step in range(len(ports))):
            try:
                node_reader, node_writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                continue
        else:
            writer.transport.abort()
            return
        await asyncio.gather(copy(reader, node_writer), copy(node_reader, writer))
        writer.close()
        node_writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    told(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


def start(ports):
    """Runs until the process ends; its port."""
    port, known = [], threading.Event()

    def told(number):
        port.append(number)
        known.set()

    threading.Thread(target=lambda: asyncio.run(serve(ports, told)), daemon=True).start()
    known.wait()
    return port[0]
