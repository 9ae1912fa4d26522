#!/usr/bin/python3
"""proxy PORT HOST:PORT relays each connection to PORT by one of its own to HOST:PORT."""
import selectors
import socket
import sys

host, port = sys.argv[2].split(":")
listener = socket.create_server(("", int(sys.argv[1])), backlog=128)
wait = selectors.DefaultSelector()
wait.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in wait.select():
        if key.fileobj is listener:
            near, _ = listener.accept()
            far = socket.create_connection((host, int(port)))
            wait.register(near, selectors.EVENT_READ, far)
            wait.register(far, selectors.EVENT_READ, near)
            continue
        try:
            data = key.fileobj.recv(65536)
        except OSError:
            data = b""
        if data:
            key.data.sendall(data)
            continue
        for s in (key.fileobj, key.data):
            wait.unregister(s)
            s.close()
