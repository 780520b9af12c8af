"""Receivers of syslog over TLS and of webhooks over HTTPS, by Python's own ssl, http and hmac.

receivers.py syslog|webhook CERTIFICATE KEY OUT [SECRET]

Prints the port, then writes what comes, one line each, to OUT.
"""

import hashlib
import hmac
import http.server
import socket
import ssl
import sys

kind, certificate, key, out = sys.argv[1:5]
secret = sys.argv[5].encode() if len(sys.argv) > 5 else b""
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
lines = open(out, "a", buffering=1, encoding="utf-8")


def syslog():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        raw, _ = listener.accept()
        try:
            with context.wrap_socket(raw, server_side=True) as stream:
                read = stream.makefile("rb")
                while True:
                    digits = b""
                    while (byte := read.read(1)).isdigit():
                        digits += byte
                    if not digits:
                        break
                    lines.write(read.read(int(digits)).decode() + "\n")
        except OSError as error:
            print(error, flush=True)


class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    calls = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        fields = dict(part.split("=") for part in self.headers["keywatch-signature"].split(","))
        signed = fields["t"].encode() + b"." + body
        good = hmac.compare_digest(
            hmac.new(secret, signed, hashlib.sha256).hexdigest(), fields["v1"]
        )
        # Every other attempt fails once.
        Webhook.calls += 1
        answer = 401 if not good else 503 if Webhook.calls % 2 else 204
        if answer == 204:
            lines.write(self.headers["ce-id"] + " " + body.decode() + "\n")
        self.send_response(answer)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if kind == "syslog":
    syslog()
server = http.server.HTTPServer(("127.0.0.1", 0), Webhook)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
