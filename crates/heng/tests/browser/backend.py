"""What the page talks to behind the proxy: uploads, an event stream, a WebSocket, early hints. It
prints its port, and then each verdict that the page sends; it serves until its input ends."""

import base64
import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = open(sys.argv[1], "rb").read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, kind="text/plain"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/verdict":
            print(body.decode(), flush=True)
            return self.answer(b"")
        self.answer(hashlib.sha256(body).hexdigest().encode())

    def do_GET(self):
        if self.path == "/":
            link = "</static/hinted.css>; rel=preload; as=style"
            self.wfile.write(f"HTTP/1.1 103 Early Hints\r\nLink: {link}\r\n\r\n".encode())
            self.answer(PAGE, "text/html")
        elif self.path == "/api/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(3):
                event = f"data: {number}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.flush()
            # The page closes it, not we.
            self.rfile.read(1)
            self.close_connection = True
        elif self.path == "/api/socket":
            self.socket()
        else:
            self.answer(self.path.encode())

    def socket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        while True:
            head = self.rfile.read(2)
            if len(head) < 2 or head[0] & 15 == 8:
                break
            length = head[1] & 127
            mask = self.rfile.read(4)
            text = bytes(b ^ mask[at % 4] for at, b in enumerate(self.rfile.read(length)))
            self.wfile.write(bytes([0x81, length]) + text)
        self.close_connection = True


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
