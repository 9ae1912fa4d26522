#!/usr/bin/python3
"""capture PORT prints what TCP carries from and to a port of any host, as the link has it: a line a segment, with its
source, destination, sequence number and octets. Empty segments are left out."""
import ipaddress
import socket
import struct
import sys

port = int(sys.argv[1])
link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
print("ready", flush=True)
while True:
    p = link.recv(65536)
    version = p[0] >> 4 if p else 0
    if version == 4 and p[9] == socket.IPPROTO_TCP:
        head, end = (p[0] & 15) * 4, struct.unpack("!H", p[2:4])[0]
        ends = p[12:16], p[16:20]
    elif version == 6 and p[6] == socket.IPPROTO_TCP:
        head, end = 40, 40 + struct.unpack("!H", p[4:6])[0]
        ends = p[8:24], p[24:40]
    else:
        continue
    t = p[head:end]
    source, destination, sequence = struct.unpack("!HHI", t[:8])
    data = t[(t[12] >> 4) * 4:]
    if data and port in (source, destination):
        a, b = (ipaddress.ip_address(e) for e in ends)
        print(a, source, b, destination, sequence, data.hex(), flush=True)
