#!/usr/bin/python3
"""A service in one process, as a database is: database PATH PORT answers on a UNIX socket and on a port of
the loopback address, many clients at once.
"""
import os
import selectors
import socket
import sys

wait = selectors.DefaultSelector()
u = socket.socket(socket.AF_UNIX)
u.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
t = socket.socket()
t.bind(("127.0.0.1", int(sys.argv[2])))
for s in u, t:
    s.listen()
    wait.register(s, selectors.EVENT_READ, True)
while True:
    for key, _ in wait.select():
        if key.data:
            wait.register(key.fileobj.accept()[0], selectors.EVENT_READ, False)
        elif data := key.fileobj.recv(4096):
            key.fileobj.sendall(data)
        else:
            wait.unregister(key.fileobj)
            key.fileobj.close()
