#!/usr/bin/python3
"""chatter HOST:PORT COUNT [WORD] keeps connections open and goes on saying something on each, WORD first."""
import random
import selectors
import socket
import sys
import time

host, port = sys.argv[1].split(":")
connections = [socket.create_connection((host, int(port))) for _ in range(int(sys.argv[2]))]
wait = selectors.DefaultSelector()
for c in connections:
    if len(sys.argv) > 3:
        c.sendall(sys.argv[3].encode() + b"\n")
    wait.register(c, selectors.EVENT_READ)
while True:
    random.choice(connections).sendall(b"x" * random.randrange(1, 400) + b"\n")
    # Each says something about thirty times a second.
    until = time.monotonic() + random.uniform(0, 2 / 30) / len(connections)
    while (left := until - time.monotonic()) > 0:
        for key, _ in wait.select(left):
            if not key.fileobj.recv(65536):
                sys.exit("hung up on")
