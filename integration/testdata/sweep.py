#!/usr/bin/python3
"""sweep HOST:PORT CONNECTIONS LOCAL PORT... asks at full speed about the connections from LOCAL to every other port, on so
many connections at once; where it is hung up on it asks there again what was not answered. It prints the replies about each PORT, and at the end
"done", with how many replies there were of each kind.
"""
import collections
import selectors
import socket
import sys

where, connections, local = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
watched = set(map(int, sys.argv[4:]))
host, port = where.rsplit(":", 1)
wait = selectors.DefaultSelector()
ahead = collections.deque(range(1, 65536))
kinds = collections.Counter()


def connect():
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setblocking(False)
    s.connect_ex((host, int(port)))
    wait.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, [collections.deque(), b""])  # what is asked, and half a reply


def ended(s, asked):
    ahead.extend(asked)
    wait.unregister(s)
    s.close()


for _ in range(connections):
    connect()
while wait.get_map():
    for key, events in wait.select():
        s, data = key.fileobj, key.data
        try:
            if events & selectors.EVENT_WRITE:
                some = [ahead.popleft() for _ in range(min(20, len(ahead)))]
                data[0].extend(some)
                if some:
                    s.sendall("".join("%d,%d\r\n" % (local, p) for p in some).encode())
                wait.modify(s, selectors.EVENT_READ, data)
                if not data[0]:
                    ended(s, [])
                continue
            got = s.recv(65536)
        except OSError:
            got = b""
        *lines, data[1] = (data[1] + got).split(b"\n")
        for line in lines:
            p = data[0].popleft()
            f = line.decode().strip().split(" : ")
            if f[0] != "%d , %d" % (local, p):
                sys.exit("asked about %d and got %r" % (p, line))
            kinds[" ".join(f[1:2] + f[2:] if f[1] == "ERROR" else f[1:2])] += 1
            if p in watched:
                print("watched", p, " ".join(f[1:]), flush=True)
        if not got:
            ended(s, data[0])
            if ahead:
                connect()
        elif not data[0]:
            wait.modify(s, selectors.EVENT_READ | selectors.EVENT_WRITE, data)
print("done", dict(kinds), flush=True)
