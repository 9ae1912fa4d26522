#!/usr/bin/python3
"""A process of thesis figure 3.2: steps STEP..., where a STEP is PORT (wait for a connection to it) or
HOST:PORT (connect). What comes in by the first connection leaves by all that it made itself.
"""
import socket
import sys

listeners = {}
for step in sys.argv[1:]:
    if ":" not in step:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", int(step)))
        s.listen()
        listeners[step] = s
accepted, made = [], []
for step in sys.argv[1:]:
    if step in listeners:
        accepted.append(listeners[step].accept()[0])
    else:
        host, port = step.split(":")
        made.append(socket.create_connection((host, int(port))))
while data := accepted[0].recv(4096):
    for s in made:
        s.sendall(data)
