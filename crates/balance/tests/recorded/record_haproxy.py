#!/usr/bin/env python3
"""Records which servers a real HAProxy chooses, request by request.

    python3 record_haproxy.py /usr/sbin/haproxy > haproxy.txt        the scenarios below
    python3 record_haproxy.py /usr/sbin/haproxy SEED > random.txt    others, drawn by SEED

Each scenario is a backend and a list of events:

    word KEY SERVER       a request with that key went there, and ended
    address KEY SERVER    a request of that client
    open KEY SERVER       a request that stays under way
    close N               the Nth request that was opened, from 0, ends
    down SERVER, up SERVER    by the administrator

Loopback and unix sockets only; ports are given by the kernel.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import queue
import time

# name, what heng says, what HAProxy says, weights, kind of key, events
KEY = "balance url_param k"
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 7
SCENARIOS = [
    ("turns", "balance roundrobin", "balance roundrobin", [5, 1, 1], "none", "plain"),
    ("turns-equal", "balance roundrobin", "balance roundrobin", [1] * 4, "none", "plain"),
    ("turns-weights", "balance roundrobin", "balance roundrobin", [5, 1, 2, 9], "none", "flap"),
    ("turns-many", "balance roundrobin", "balance roundrobin",
     [1 + n % 7 for n in range(60)], "none", "flap"),
    ("fixed", "balance static-rr", "balance static-rr", [5, 1, 2, 9], "none", "flap"),
    ("fixed-divided", "balance static-rr", "balance static-rr", [6, 9, 3], "none", "plain"),
    ("fixed-many", "balance static-rr", "balance static-rr",
     [1 + n % 7 for n in range(60)], "none", "flap"),
    ("load", "balance leastconn", "balance leastconn", [1] * 4, "none", "held"),
    ("load-weights", "balance leastconn", "balance leastconn", [5, 1, 2, 9], "none", "held"),
    ("load-flap", "balance leastconn", "balance leastconn", [5, 1, 2, 9], "none", "held-flap"),
    ("load-many", "balance leastconn", "balance leastconn",
     [1 + n % 7 for n in range(30)], "none", "held-flap"),
    ("first", "first", "balance first", [1] * 4, "none", "held-limits"),
    ("map", "hash_type map-based", KEY, [1] * 3, "word", "plain"),
    ("map-weights", "hash_type map-based", KEY, [5, 1, 2, 9], "word", "flap"),
    ("map-avalanche", "hash_type map-based avalanche",
     KEY + "\n    hash-type map-based sdbm avalanche", [5, 1, 2, 9], "word", "flap"),
    ("map-djb2", "hash_type map-based djb2", KEY + "\n    hash-type map-based djb2",
     [3, 1, 2], "word", "flap"),
    ("map-wt6", "hash_type map-based wt6", KEY + "\n    hash-type map-based wt6",
     [3, 1, 2], "word", "flap"),
    ("map-crc32", "hash_type map-based crc32", KEY + "\n    hash-type map-based crc32",
     [3, 1, 2], "word", "flap"),
    ("map-many", "hash_type map-based", KEY, [1 + n % 7 for n in range(60)], "word", "flap"),
    ("map-source", "hash_type map-based", "balance source", [5, 1, 2, 9], "address", "flap"),
    # Without a function, the consistent type mixes once more.
    ("ring", "hash_type consistent avalanche", KEY + "\n    hash-type consistent",
     [1] * 3, "word", "plain"),
    ("ring-weights", "hash_type consistent", KEY + "\n    hash-type consistent sdbm",
     [5, 1, 2, 9], "word", "flap"),
    ("ring-avalanche", "hash_type consistent avalanche",
     KEY + "\n    hash-type consistent sdbm avalanche", [5, 1, 2, 9], "word", "flap"),
    ("ring-many", "hash_type consistent wt6", KEY + "\n    hash-type consistent wt6",
     [1 + n % 7 for n in range(60)], "word", "flap"),
    ("ring-source", "hash_type consistent avalanche",
     "balance source\n    hash-type consistent sdbm avalanche", [5, 1, 2, 9], "address", "flap"),
    ("ring-bounded", "hash_type consistent avalanche factor=150",
     KEY + "\n    hash-type consistent sdbm avalanche\n    hash-balance-factor 150",
     [5, 1, 2, 9], "word", "held-few"),
]


def drawn_scenarios(seed):
    """As many others: weights, functions and events by chance."""
    drawn = random.Random(seed)
    weights = lambda: [drawn.randint(1, 20) for _ in range(drawn.randint(2, 12))]
    functions = ["sdbm", "djb2", "wt6", "crc32"]
    for name in ["roundrobin", "static-rr"]:
        yield (name, f"balance {name}", f"balance {name}", weights(), "none", "flap")
    yield ("leastconn", "balance leastconn", "balance leastconn", weights(), "none", "held-flap")
    for kind in ["map-based", "consistent"]:
        for avalanche in ["", " avalanche"]:
            function = drawn.choice(functions)
            ours = f"hash_type {kind} {function}{avalanche}"
            theirs = f"{KEY}\n    hash-type {kind} {function}{avalanche}"
            yield (f"{kind}{avalanche}", ours, theirs, weights(), "word", "flap")
    factor = drawn.randint(110, 300)
    yield ("bounded", f"hash_type consistent avalanche factor={factor}",
           f"{KEY}\n    hash-type consistent sdbm avalanche\n    hash-balance-factor {factor}",
           weights(), "word", "held-few")


class Backends:
    """Servers that answer when they are told to."""

    def __init__(self, folder, count):
        self.came = queue.Queue()
        self.paths = [f"{folder}/s{n}" for n in range(count)]
        for n, path in enumerate(self.paths):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(64)
            os.chmod(path, 0o777)
            threading.Thread(target=self.accept, args=(n, listener), daemon=True).start()

    def accept(self, n, listener):
        while True:
            stream, _ = listener.accept()
            stream.recv(4096)
            self.came.put((n, stream))


def configuration(folder, port, theirs, weights, backends, limit):
    lines = "\n".join(
        f"    server s{n} unix@{path} weight {weight}{limit}"
        for n, (path, weight) in enumerate(zip(backends.paths, weights))
    )
    return f"""
global
    nbthread 1
    stats socket {folder}/admin level admin
defaults
    mode http
    timeout client 1m
    timeout server 1m
    timeout connect 5s
    timeout queue 1m
    option http-server-close
frontend f
    bind 127.0.0.1:{port}
    http-request set-src req.hdr(X-Client) if {{ req.hdr(X-Client) -m found }}
    default_backend b
backend b
    http-reuse never
    {theirs}
{lines}
"""


class Run:
    def __init__(self, haproxy, scenario):
        self.name, self.ours, theirs, self.weights, self.kind, self.events = scenario
        self.folder = tempfile.mkdtemp()
        self.backends = Backends(self.folder, len(self.weights))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        limit = " maxconn 3" if self.events == "held-limits" else ""
        text = configuration(self.folder, self.port, theirs, self.weights, self.backends, limit)
        with open(f"{self.folder}/conf", "w") as out:
            out.write(text)
        self.child = subprocess.Popen([haproxy, "-db", "-f", f"{self.folder}/conf"],
                                      stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.time() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                if time.time() > deadline:
                    raise
        self.opened = []

    def open(self, key):
        """Begins a request; the number of the server that it came to."""
        stream = socket.create_connection(("127.0.0.1", self.port))
        target = f"/?k={key}" if self.kind == "word" else "/"
        field = f"X-Client: {key}\r\n" if self.kind == "address" else ""
        stream.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{field}\r\n".encode())
        server, asked = self.backends.came.get(timeout=10)
        self.opened.append((stream, asked))
        return server

    def close(self, n):
        stream, asked = self.opened[n]
        asked.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        asked.close()
        while stream.recv(4096):
            pass
        stream.close()

    def admin(self, command):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(f"{self.folder}/admin")
            stream.sendall(command.encode() + b"\n")
            while stream.recv(4096):
                pass

    def ask(self, key):
        kind = "word" if self.kind == "none" else self.kind
        server = self.open(key)
        self.close(len(self.opened) - 1)
        print(f"{kind} {key or '-'} {server}")

    def play(self):
        print(f"[{self.name}]")
        print(f"method {self.ours}")
        for n, weight in enumerate(self.weights):
            print(f"server s{n} {weight}{' limit=3' if self.events == 'held-limits' else ''}")
        drawn = random.Random(SEED)
        down, under_way = set(), []
        for n in range(160):
            key = draw_key(drawn, self.kind, 6 if self.events == "held-few" else None)
            if self.events.endswith("flap") and n % 12 == 7:
                self.flap(drawn, down)
            if not self.events.startswith("held"):
                self.ask(key)
            elif under_way and (drawn.random() < 0.45 or len(under_way) >= 11):
                nth = under_way.pop(drawn.randrange(len(under_way)))
                self.close(nth)
                print(f"close {nth}")
            else:
                under_way.append(len(self.opened))
                print(f"open {key or '-'} {self.open(key)}")
        for nth in under_way:
            self.close(nth)

    def flap(self, drawn, down):
        if down and (drawn.random() < 0.5 or len(down) >= len(self.weights) - 1):
            server = drawn.choice(sorted(down))
            down.discard(server)
            self.admin(f"set server b/s{server} state ready")
            print(f"up {server}")
        else:
            server = drawn.choice([n for n in range(len(self.weights)) if n not in down])
            down.add(server)
            self.admin(f"set server b/s{server} state maint")
            print(f"down {server}")

    def end(self):
        self.child.terminate()
        self.child.wait()
        shutil.rmtree(self.folder)


def draw_key(drawn, kind, popular):
    if kind == "none":
        return ""
    if kind == "address":
        return ".".join(str(drawn.randint(1, 254)) for _ in range(4))
    if popular:
        return f"key{drawn.randrange(popular)}"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789/"
    return "".join(drawn.choice(letters) for _ in range(drawn.randint(1, 12)))


def main():
    scenarios = drawn_scenarios(SEED) if len(sys.argv) > 2 else SCENARIOS
    for scenario in scenarios:
        run = Run(sys.argv[1], scenario)
        try:
            run.play()
        finally:
            run.end()


main()
