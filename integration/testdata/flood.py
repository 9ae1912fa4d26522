#!/usr/bin/python3
"""flood HOST:PORT CONNECTIONS COUNT LOCAL REMOTE TYPE... asks COUNT times at full speed about connections from LOCAL on to
REMOTE on, by each TYPE ("", "SV", "SV_REC:7") in turn, on so many connections at once; where it is hung up on
it connects again. It prints "answered N" for every thousand answers and "done N" at the end.
"""
import selectors
import socket
import sys

where, connections, count, local, remote = sys.argv[1], *map(int, sys.argv[2:6])
types = sys.argv[6:] or [""]
host, port = where.split(":")
wait = selectors.DefaultSelector()
asked = answered = 0


def lines():
    global asked
    out = []
    for _ in range(50):
        t = types[asked % len(types)]
        out.append("%d,%d%s\r\n" % (1 + (local + asked) % 65535, 1 + (remote + asked // 65535) % 65535, ":" + t if t else ""))
        asked += 1
    return "".join(out).encode()


def connect():
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex((host, int(port)))
    wait.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, [0])  # lines without an answer


for _ in range(connections):
    connect()
while answered < count:
    for key, events in wait.select():
        s, left = key.fileobj, key.data
        try:
            if events & selectors.EVENT_WRITE:
                s.sendall(lines())
                left[0] += 50
                wait.modify(s, selectors.EVENT_READ, left)
                continue
            data = s.recv(65536)
        except OSError:
            data = b""
        n = data.count(b"\n")
        if (answered + n) // 1000 > answered // 1000:
            print("answered", answered + n, flush=True)
        answered += n
        left[0] -= n
        if not data:
            wait.unregister(s)
            s.close()
            connect()
        elif left[0] < 25:
            wait.modify(s, selectors.EVENT_READ | selectors.EVENT_WRITE, left)
print("done", answered, flush=True)
