#!/usr/bin/python3
"""clients HOST:PORT:COUNT[:LINE]... keeps connections to each port, says LINE once on each, and connects
again where it is hung up on, as sshd does after a while with whoever never logs in.
"""
import selectors
import socket
import sys

wait = selectors.DefaultSelector()


def connect(target):
    host, port, _, *line = target.split(":")
    s = socket.create_connection((host, int(port)))
    if line:
        s.sendall(line[0].encode().decode("unicode_escape").encode())
    wait.register(s, selectors.EVENT_READ, target)


for target in sys.argv[1:]:
    for _ in range(int(target.split(":")[2])):
        connect(target)
while True:
    for key, _ in wait.select():
        try:
            data = key.fileobj.recv(65536)
        except OSError:
            data = b""
        if not data:
            wait.unregister(key.fileobj)
            key.fileobj.close()
            connect(key.data)
