#!/usr/bin/python3
"""chatter [tls] [socks HOST:PORT] [name NAME] HOST:PORT TALKING SILENT keeps connections open. On each it says first who it is, NAME or
its own end. On some it goes on saying something about thirty times a second, on the others for a second at most. Through a proxy of SOCKS it goes on to a port
of another host.
"""
import random
import selectors
import socket
import ssl
import struct
import sys
import time

args = sys.argv[1:]
options = {}
while args[0] in ("tls", "socks", "name"):
    word = args.pop(0)
    options[word] = word == "tls" or args.pop(0)


def end(text):
    host, port = text.split(":")
    return host, int(port)


def exactly(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            sys.exit("hung up on")
        data += more
    return data


def connect(to):
    s = socket.create_connection(to)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = options.get("name", "%s:%d" % s.getsockname())
    if "tls" in options:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        s = context.wrap_socket(s)
    if "socks" in options:
        host, port = end(options["socks"])
        s.sendall(b"\5\1\0")
        if exactly(s, 2) != b"\5\0":
            sys.exit("refused")
        s.sendall(b"\5\1\0\1" + socket.inet_aton(host) + struct.pack(">H", port))
        if exactly(s, 10)[1]:
            sys.exit("refused")
    s.sendall(b"I am " + name.encode() + b"\n")
    s.setblocking(False)
    return s


to, talking, silent = end(args[0]), int(args[1]), int(args[2])
until = {}
for i in random.sample(range(talking + silent), talking + silent):
    until[connect(to)] = None if i < talking else time.monotonic() + random.random()
wait = selectors.DefaultSelector()
for s in until:
    wait.register(s, selectors.EVENT_READ)
while True:
    now = time.monotonic()
    may = [s for s, end in until.items() if end is None or end > now]
    if may:
        try:
            random.choice(may).sendall(b"x" * random.randrange(1, 400) + b"\n")
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
    next = now + (random.uniform(0, 2 / 30) / len(may) if may else 10)
    while (left := next - time.monotonic()) > 0:
        for key, _ in wait.select(left):
            try:
                while True:
                    if not key.fileobj.recv(65536):
                        sys.exit("hung up on")
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
