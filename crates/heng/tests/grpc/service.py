"""A gRPC service without generated code: messages are bytes. It prints its ports, and serves until
its input ends. KEY and CERTIFICATE, for the second port, are in the environment."""

import os
import sys
import threading
from concurrent import futures

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-asked", "")),))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-data-bin", b"\x00\xff")))
    return request[::-1]


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: " + request.decode())


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def echo(requests, context):
    for request in requests:
        yield request


ended = threading.Event()


def forever(request, context):
    context.add_callback(ended.set)
    yield b"begun"
    ended.wait(20)


def was_ended(request, context):
    return b"yes" if ended.wait(10) else b"no"


def silent(request, context):
    """Answers when nobody waits for it any more."""
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(20)
    return b""


def together(request, context):
    """Answers when so many calls are under way at once."""
    barrier.wait(10)
    return context.peer().encode()


barrier = threading.Barrier(30)

METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Forever": grpc.unary_stream_rpc_method_handler(forever),
    "WasEnded": grpc.unary_unary_rpc_method_handler(was_ended),
    "Silent": grpc.unary_unary_rpc_method_handler(silent),
    "Together": grpc.unary_unary_rpc_method_handler(together),
}

options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(64), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", METHODS),))
plain = server.add_insecure_port("127.0.0.1:0")
pair = (os.environb[b"KEY"], os.environb[b"CERTIFICATE"])
secure = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
server.start()
print(plain, secure, flush=True)
sys.stdin.read()
server.stop(None)
