"""gRPC's own client: `ask_grpc.py ADDRESS`. One channel, that is one connection; each call is decided for itself."""
import collections
import sys

import grpc

ADA = (("end-user", "ada"),)


def main(address):
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        hello = channel.unary_unary("/greeter.Greeter/Hello")
        chat = channel.stream_stream("/greeter.Greeter/Chat")
        forever = channel.unary_stream("/greeter.Greeter/Forever")

        answers = collections.Counter()
        calls = [hello.future(b"x" * 10, metadata=ADA if n % 2 else None, timeout=10) for n in range(200)]
        for n, call in enumerate(calls):
            answers[n % 2, call.result().split(b":")[0]] += 1
        assert answers == {(0, b"v1"): 100, (1, b"v2"): 100}, answers

        large = b"y" * 2_000_000
        assert hello(large, metadata=ADA, timeout=10) == b"v2:" + large, "a large message"

        answer, call = hello.with_call(b"trailers", timeout=10)
        assert dict(call.trailing_metadata())["served-by"] == "v1", call.trailing_metadata()

        try:
            hello(b"fail", metadata=ADA, timeout=10)
            raise AssertionError("it should have failed")
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "asked to"), error

        import queue

        say = queue.Queue()
        heard = chat(iter(say.get, None), metadata=ADA, timeout=10)
        for n in range(50):
            say.put(b"%d" % n)
            assert next(heard) == b"v2:%d" % n
        say.put(None)
        assert list(heard) == []

        ticks = forever(b"", timeout=10)
        assert [next(ticks) for _ in range(5)] == [b"tick"] * 5
        ticks.cancel()
        try:
            for _ in forever(b"", timeout=0.3):
                pass
            raise AssertionError("it should have taken too long")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


main(sys.argv[1])
