#!/usr/bin/env python3
"""Records which servers a real nginx asks, request by request.

    python3 record.py /usr/sbin/nginx > nginx.txt

Each scenario is a group and a list of keys. The answers tell all servers that were asked, in
order (`$upstream_addr`). Servers marked `dead` have no listener. Loopback only.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

FRONT = 18000
BASE = 18100

# name, directive, servers (weight, flag), kind of key
SCENARIOS = [
    ("plain", "hash $arg_k;", [(1, "")] * 3, "word"),
    ("weights", "hash $arg_k;", [(5, ""), (1, ""), (2, ""), (9, "")], "word"),
    ("down", "hash $arg_k;", [(1, ""), (3, "down"), (2, ""), (1, "")], "word"),
    ("dead", "hash $arg_k;", [(1, ""), (3, "dead"), (2, ""), (1, "dead"), (1, "")], "word"),
    ("mostly-down", "hash $arg_k;", [(50, "down"), (1, ""), (1, "")], "word"),
    ("many", "hash $arg_k;", [(1 + n % 3, "") for n in range(60)], "word"),
    ("ring", "hash $arg_k consistent;", [(1, "")] * 3, "word"),
    ("ring-weights", "hash $arg_k consistent;", [(5, ""), (1, ""), (2, ""), (9, "")], "word"),
    ("ring-down", "hash $arg_k consistent;", [(1, ""), (3, "down"), (2, ""), (1, "")], "word"),
    ("ring-dead", "hash $arg_k consistent;", [(1, ""), (3, "dead"), (2, ""), (1, "dead")], "word"),
    ("ring-mostly-down", "hash $arg_k consistent;", [(90, "down"), (1, ""), (1, "")], "word"),
    ("ring-many", "hash $arg_k consistent;", [(1 + n % 3, "") for n in range(60)], "word"),
    ("ip", "ip_hash;", [(1, "")] * 3, "address"),
    ("ip-weights", "ip_hash;", [(5, ""), (1, ""), (2, ""), (9, "")], "address"),
    ("ip-down", "ip_hash;", [(1, ""), (3, "down"), (2, ""), (1, "")], "address"),
    ("ip-dead", "ip_hash;", [(1, ""), (3, "dead"), (2, ""), (1, "dead"), (1, "")], "address"),
    ("ip-mostly-down", "ip_hash;", [(50, "down"), (1, ""), (1, "")], "address"),
    ("turns-dead", "", [(5, ""), (1, "dead"), (2, ""), (3, "dead")], "word"),
    ("turns-many", "", [(1 + n % 3, "dead" if n % 9 == 4 else "") for n in range(60)], "word"),
    ("least-dead", "least_conn;", [(5, ""), (1, "dead"), (2, ""), (3, "")], "word"),
]


def keys(kind, count=300):
    drawn = random.Random(7)
    for n in range(count):
        if kind == "word":
            length = drawn.randint(0 if n == 50 else 1, 12)
            yield "".join(drawn.choice("abcdefghijklmnopqrstuvwxyz0123456789/") for _ in range(length))
        elif n % 3 == 2:
            yield ":".join(f"{drawn.randint(1, 65535):x}" for _ in range(8))
        else:
            yield ".".join(str(drawn.randint(1, 254)) for _ in range(4))


def configuration(folder, method, servers):
    lines = []
    for n, (weight, flag) in enumerate(servers):
        down = " down" if flag == "down" else ""
        lines.append(f"server 127.0.0.1:{BASE + n} weight={weight} fail_timeout=1h{down};")
    listens = [f"listen 127.0.0.1:{BASE + n};" for n, (_, flag) in enumerate(servers) if flag != "dead"]
    return f"""
daemon on; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;
    upstream u {{ {method} {" ".join(lines)} }}
    server {{ listen 127.0.0.1:{FRONT};
        location / {{ add_header X-Asked $upstream_addr always; proxy_pass http://u; }} }}
    server {{ {" ".join(listens)} return 204; }}
}}"""


def ask(key, kind):
    target = f"/?k={key}" if kind == "word" else "/"
    field = f"X-Real-IP: {key}\r\n" if kind == "address" else ""
    with socket.create_connection(("127.0.0.1", FRONT)) as stream:
        stream.sendall(f"GET {target} HTTP/1.0\r\nHost: a\r\n{field}\r\n".encode())
        answer = b""
        while piece := stream.recv(4096):
            answer += piece
    asked = next(l for l in answer.decode().split("\r\n") if l.startswith("X-Asked: "))
    return [int(a.rsplit(":", 1)[1]) - BASE for a in asked[9:].split(", ")]


def record(nginx, scenario):
    name, method, servers, kind = scenario
    folder = tempfile.mkdtemp()
    with open(f"{folder}/conf", "w") as out:
        out.write(configuration(folder, method, servers))
    command = [nginx, "-c", f"{folder}/conf", "-e", f"{folder}/error.log", "-p", folder]
    subprocess.run(command, check=True)
    print(f"[{name}]")
    print(f"method {method.rstrip(';').replace(' $arg_k', '') or 'round_robin'}")
    for n, (weight, flag) in enumerate(servers):
        print(f"server 127.0.0.1:{BASE + n} {weight} {flag or 'up'}")
    for key in keys(kind):
        print(f"{kind} {key or '-'} {' '.join(map(str, ask(key, kind)))}")
    pid = int(open(f"{folder}/pid").read())
    os.kill(pid, 15)
    while os.path.exists(f"{folder}/pid"):
        time.sleep(0.01)
    shutil.rmtree(folder)


for scenario in SCENARIOS:
    record(sys.argv[1], scenario)
