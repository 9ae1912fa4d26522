#!/usr/bin/python3
"""answer PORT answers whoever connects, more or less, and writes down who says to be at the other end of which connection."""
import os
import random
import selectors
import socket
import sys

port = int(sys.argv[1])
listener = socket.create_server(("", port), backlog=256)
known = open("/tmp/answered-%d" % port, "w", buffering=1)
os.chmod(known.name, 0o644)
wait = selectors.DefaultSelector()
wait.register(listener, selectors.EVENT_READ)
said = {}
while True:
    for key, _ in wait.select():
        s = key.fileobj
        if s is listener:
            s, peer = s.accept()
            wait.register(s, selectors.EVENT_READ, "%s:%d" % peer[:2])
            said[s] = b""
            continue
        try:
            data = s.recv(65536)
            if said.get(s) is not None:
                said[s] += data
                line, ended, _ = said[s].partition(b"\n")
                if ended:
                    known.write("%s %s\n" % (key.data, line.decode().removeprefix("I am ")))
                    said[s] = None
            if data and random.random() < 0.7:
                s.sendall(b"y" * random.randrange(1, 300))
        except OSError:
            data = b""
        if not data:
            wait.unregister(s)
            said.pop(s, None)
            s.close()
