#!/usr/bin/python3
"""hand hands connections on, as descriptors that pass through UNIX sockets (SCM_RIGHTS).

hand keep PATH           passes on what comes from the first connection that it is given to the second
hand give PATH PORT      waits for a connection to PORT, gives it and ends
hand give PATH HOST:PORT connects, gives that and ends
hand lose PORT HOST:PORT passes on what comes to PORT, then leaves the connection that it made to a UNIX
                         socket that nobody reads from
"""
import os
import socket
import sys


def connection(where):
    host, _, port = where.rpartition(":")
    if host:
        return socket.create_connection((host, int(port)))
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", int(port)))
    s.listen()
    return s.accept()[0]


role, *args = sys.argv[1:]
if role == "keep":
    u = socket.socket(socket.AF_UNIX)
    u.bind(args[0])
    u.listen()
    given = []
    while len(given) < 2:
        c, _ = u.accept()
        _, fds, _, _ = socket.recv_fds(c, 1, 1)
        given.append(fds[0])
        c.send(b"x")
        c.close()
    u.close()
    while data := os.read(given[0], 4096):
        os.write(given[1], data)
elif role == "give":
    s = connection(args[1])
    u = socket.socket(socket.AF_UNIX)
    u.connect(args[0])
    socket.send_fds(u, [b"x"], [s.fileno()])
    u.recv(1)  # it has arrived
else:
    source, to = connection(args[0]), connection(args[1])
    to.sendall(source.recv(4096))
    near, far = socket.socketpair()
    socket.send_fds(near, [b"x"], [to.fileno()])
    to.close()
    source.recv(4096)
