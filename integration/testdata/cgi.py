#!/usr/bin/python3
"""A server with a hole: cgi PORT executes each line that it is sent, as its own child, and hangs up."""
import socket
import subprocess
import sys

s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", int(sys.argv[1])))
s.listen()
children = []
while True:
    c, _ = s.accept()
    line = c.makefile().readline()
    c.close()
    children.append(subprocess.Popen(line, shell=True, stdin=subprocess.PIPE))
