#!/usr/bin/python3
"""fetch HOST:PORT COUNT TIMES keeps COUNT connections by HTTP, and fetches something by one of them after the other, TIMES each. With TIMES
of 0 it goes on so, by any of them, about thirty times a second.
"""
import http.client
import random
import sys
import time

to, count, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
clients = [http.client.HTTPConnection(to) for _ in range(count)]


def fetch(client):
    client.request("GET", "/etc/hostname?" + "x" * random.randrange(300))
    client.getresponse().read()


for client in clients * times:
    fetch(client)
while times == 0:
    fetch(random.choice(clients))
    time.sleep(random.uniform(0, 2 / 30))
