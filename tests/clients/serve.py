"""Servers of others, for the tests: `serve.py grpc|websocket VERSION PORT`. Prints `ready` when it listens."""
import asyncio
import sys
from concurrent import futures

KIND, VERSION, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


def serve_grpc():
    import grpc

    def hello(request, context):
        context.set_trailing_metadata((("served-by", VERSION),))
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "asked to")
        return VERSION.encode() + b":" + request

    def chat(requests, context):
        # Each message is answered before the next one is there: only a stream that is not collected gets on.
        for request in requests:
            yield VERSION.encode() + b":" + request

    def forever(request, context):
        while context.is_active():
            yield b"tick"
            if ENDED.wait(0.02):
                return

    import threading

    global ENDED
    ENDED = threading.Event()
    methods = {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Forever": grpc.unary_stream_rpc_method_handler(forever),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("greeter.Greeter", methods),))
    assert server.add_insecure_port(f"0.0.0.0:{PORT}") == PORT
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


async def serve_websocket():
    import websockets

    async def echo(socket, path=None):
        await socket.send(VERSION)
        async for message in socket:
            if message == "bye":
                await socket.close(4001, "asked to")
                return
            await socket.send(message)

    async with websockets.serve(echo, "0.0.0.0", PORT, max_size=None):
        print("ready", flush=True)
        await asyncio.Future()


if KIND == "grpc":
    serve_grpc()
else:
    asyncio.run(serve_websocket())
