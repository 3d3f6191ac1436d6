"""Calls the service through a proxy, whose port is the argument; over TLS when CERTIFICATE is in the
environment. Prints `ok` at the end."""

import os
import sys
from concurrent import futures

import grpc

LIMIT = 20
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.ssl_target_name_override", "localhost"),
]

address = "127.0.0.1:" + sys.argv[1]
if b"CERTIFICATE" in os.environb:
    credentials = grpc.ssl_channel_credentials(os.environb[b"CERTIFICATE"])
    channel = grpc.secure_channel(address, credentials, OPTIONS)
else:
    channel = grpc.insecure_channel(address, OPTIONS)


def same(left, right):
    assert left == right, f"{left!r} is not {right!r}"


def method(name):
    return "/test.Test/" + name


# One message each way, with metadata before and behind.
unary = channel.unary_unary(method("Unary"))
answer, call = unary.with_call(b"abc", timeout=LIMIT, metadata=(("x-asked", "yes"),))
same(answer, b"cba")
same(dict(call.initial_metadata())["x-initial"], "yes")
trailing = dict(call.trailing_metadata())
same((trailing["x-trailing"], trailing["x-data-bin"]), ("t", b"\x00\xff"))

# Empty and big messages.
same(unary(b"", timeout=LIMIT), b"")
big = bytes(range(256)) * 40000
same(unary(big, timeout=LIMIT), big[::-1])

# Errors of the service, and of a method that is not there.
for name, code, details in (
    ("Fail", grpc.StatusCode.FAILED_PRECONDITION, "no: why"),
    ("Nothing", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
):
    try:
        channel.unary_unary(method(name))(b"why", timeout=LIMIT)
        raise AssertionError(name)
    except grpc.RpcError as error:
        same((error.code(), error.details()), (code, details))

# Streams from the server, from the client, and both ways at once.
numbers = list(channel.unary_stream(method("Count"))(b"1000", timeout=LIMIT))
same(numbers, [str(number).encode() for number in range(1000)])
same(channel.stream_unary(method("Total"))((b"x" * 1000 for _ in range(500)), timeout=LIMIT),
     b"500000")


class Talk:
    """Messages that are said one after another, each after the answer to the last."""

    def __init__(self):
        self.answered = futures.Future()

    def __iter__(self):
        for number in range(50):
            yield str(number).encode()
            self.answered.result(LIMIT)
            self.answered = futures.Future()


talk = Talk()
heard = []
for answer in channel.stream_stream(method("Echo"))(iter(talk), timeout=LIMIT):
    heard.append(answer)
    talk.answered.set_result(None)
same(heard, [str(number).encode() for number in range(50)])

# A call that the client gives up reaches the server as such.
forever = channel.unary_stream(method("Forever"))(b"", timeout=LIMIT)
same(next(forever), b"begun")
forever.cancel()
same(channel.unary_unary(method("WasEnded"))(b"", timeout=LIMIT), b"yes")

# A deadline that passes.
try:
    channel.unary_unary(method("Silent"))(b"", timeout=0.2)
    raise AssertionError("the deadline did not hold")
except grpc.RpcError as error:
    same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

# Many calls at once, which come to the server by one connection.
together = channel.unary_unary(method("Together"))
calls = [together.future(b"", timeout=LIMIT) for _ in range(30)]
same(len({call.result() for call in calls}), 1)

print("ok")
