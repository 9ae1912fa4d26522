#!/usr/bin/python3
"""share DIR PORT HOST HOSTPORT passes on what comes to PORT, and forks: both processes hold both
connections, until somebody opens the FIFO DIR/leave and the parent ends. DIR/child has the child's pid.
"""
import os
import socket
import sys

directory, port, host, host_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", port))
s.listen()
a, _ = s.accept()
s.close()
out = socket.create_connection((host, host_port))
if os.fork() == 0:
    with open(os.path.join(directory, "child"), "w") as f:
        f.write(str(os.getpid()))
    while data := a.recv(4096):
        out.sendall(data)
    sys.exit()
open(os.path.join(directory, "leave")).read()  # the open waits for a writer; until then it holds nothing
