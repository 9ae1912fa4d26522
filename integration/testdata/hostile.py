#!/usr/bin/python3
"""hostile MODE [ARG] answers questions on port 113 as no host should, and prints each. MODE is

reflect B  asks B, twice for each question, about the connection that the question comes by, then answers with a token
two        answers with a token and then with another
token T    answers with the token T
trickle    answers an octet a second
endless    answers a line without an end
control    answers with an error that moves the cursor
reset      resets the connection
"""
import socket
import struct
import sys
import threading
import time

mode, arg = sys.argv[1], (sys.argv + [""])[2]
TOKENS = [b"s" + c * 52 for c in (b"a", b"q")]


def serve(s, port):
    ask = s.makefile("rb").readline()
    print("asked", ask.decode().strip(), flush=True)
    ports = ask.split(b":")[0].strip()
    reply = ports + b" : USERID : OTHER : %s\r\n"
    if mode == "reflect":
        sid = int(ask.split(b":")[2])
        for n in (sid, sid ^ 1):
            back = socket.create_connection((arg, 113))
            back.sendall(b"%d , 113 : SV_REC : %d\r\n" % (port, n))
            print("reflected", back.makefile("rb").readline().decode().strip(), flush=True)
        s.sendall(reply % TOKENS[0])
    elif mode == "two":
        s.sendall(reply % TOKENS[0] + reply % TOKENS[1])
    elif mode == "token":
        s.sendall(reply % arg.encode())
    elif mode == "trickle":
        for c in reply % TOKENS[0]:
            s.sendall(bytes([c]))
            time.sleep(1)
    elif mode == "endless":
        while True:
            s.sendall(b"9" * 65536)
    elif mode == "control":
        s.sendall(ports + b" : ERROR : X\x1b[2J\x07\r\n")
    elif mode == "reset":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()


def safely(s, port):
    try:
        serve(s, port)
    except OSError:
        pass
    # A reader of s holds it open otherwise.
    s.close()


listener = socket.create_server(("", 113), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=False)
while True:
    s, peer = listener.accept()
    threading.Thread(target=safely, args=(s, peer[1]), daemon=True).start()
