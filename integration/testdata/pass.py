#!/usr/bin/python3
"""pass FROM TO passes on what comes from one connection to another. FROM is - (the input) or KIND:PORT, TO
is KIND:HOST:PORT, and KIND is tcp, mptcp, or fastopen: TCP with data in the first segment.
"""
import os
import socket
import sys

FASTOPEN_CONNECT = 30  # linux/tcp.h
SYN_DATA = 32


def new(kind):
    protocol = 262 if kind == "mptcp" else 0  # IPPROTO_MPTCP
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)


def accepted(kind, port):
    s = new(kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", int(port)))
    if kind == "fastopen":
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
    s.listen()
    return s.accept()[0]


def connected(kind, host, port):
    s = new(kind)
    if kind == "fastopen":
        s.setsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1)  # the first segment waits for data
    s.connect((host, int(port)))
    return s


kind, *rest = sys.argv[1].split(":")
source = 0 if kind == "-" else accepted(kind, *rest).detach()
kind, *rest = sys.argv[2].split(":")
to = connected(kind, *rest)
while data := os.read(source, 4096):
    to.sendall(data)
    if kind == "fastopen" and not to.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 16)[5] & SYN_DATA:
        sys.exit("no data went with the first segment")
