#!/usr/bin/python3
"""crowd PORT PROCESSES EACH listens, and has that many processes with EACH accepted connections each."""
import gc
import os
import signal
import socket
import sys

port, processes, each = map(int, sys.argv[1:])
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", port))
s.listen(4096)
gc.freeze()
for _ in range(processes):
    if os.fork() == 0:
        held = [s.accept()[0] for _ in range(each)]
        s.close()
        signal.pause()
s.close()
signal.pause()
