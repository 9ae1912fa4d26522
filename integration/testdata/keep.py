#!/usr/bin/python3
"""Two processes that share memory, a queue or signals: keep KIND NUMBER in PORT keeps what comes to PORT in it,
and keep KIND NUMBER out HOST PORT passes that on. KIND is sysv, posix, mqueue, msg, sem, memfd or eventfd;
processes with the last two inherit it: keep memfd NUMBER both PORT HOST HOSTPORT.
"""
import ctypes
import os
import socket
import struct
import sys
import time

SIZE = 4096
libc = ctypes.CDLL(None, use_errno=True)
for name in "shmat", "mmap":
    getattr(libc, name).restype = ctypes.c_void_p
CREATE = 0o1000  # IPC_CREAT


def check(result):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Memory:
    """One message at a time: its length in the first octet, 0 where there is none."""

    def __init__(self, address):
        self.text = (ctypes.c_ubyte * SIZE).from_address(check(address))

    def put(self, data):
        for part in (data[i:i + 255] for i in range(0, len(data), 255)):
            while self.text[0]:
                time.sleep(0.01)
            self.text[1:1 + len(part)] = part
            self.text[0] = len(part)

    def take(self):
        while not self.text[0]:
            time.sleep(0.01)
        data = bytes(self.text[1:1 + self.text[0]])
        self.text[0] = 0
        return data


def mapped(fd):
    """A mapping without its descriptor; Python's own keeps one."""
    os.ftruncate(fd, SIZE)
    m = Memory(libc.mmap(None, ctypes.c_size_t(SIZE), 3, 1, fd, ctypes.c_long(0)))
    os.close(fd)
    return m


def sysv(number):
    return Memory(libc.shmat(check(libc.shmget(number, SIZE, CREATE | 0o600)), None, 0))


def posix(number):
    return mapped(os.open("/dev/shm/keep-%d" % number, os.O_RDWR | os.O_CREAT, 0o600))


class POSIXQueue:
    def __init__(self, number):
        self.fd = check(libc.mq_open(b"/keep-%d" % number, os.O_RDWR | os.O_CREAT, 0o600, None))

    def put(self, data):
        check(libc.mq_send(self.fd, data, ctypes.c_size_t(len(data)), 0))

    def take(self):
        data = ctypes.create_string_buffer(8192)
        n = check(libc.mq_receive(self.fd, data, ctypes.c_size_t(8192), None))
        return data.raw[:n]


class SysVQueue:
    def __init__(self, number):
        self.id = check(libc.msgget(number, CREATE | 0o600))

    def put(self, data):
        kind = (1).to_bytes(ctypes.sizeof(ctypes.c_long), sys.byteorder)
        check(libc.msgsnd(self.id, kind + data, ctypes.c_size_t(len(data)), 0))

    def take(self):
        kind = ctypes.sizeof(ctypes.c_long)
        data = ctypes.create_string_buffer(kind + SIZE)
        n = check(libc.msgrcv(self.id, data, ctypes.c_size_t(SIZE), ctypes.c_long(0), 0))
        return data.raw[kind:kind + n]


class Semaphores:
    """An octet at a time, as the value of a semaphore. A second says that it may be set, and in a third its
    writers count what they have sent, as many do that share memory as well."""

    def __init__(self, number):
        self.id = check(libc.semget(number, 3, CREATE | 0o600))

    def change(self, n, by):
        check(libc.semop(self.id, struct.pack("hhh", n, by, 0), ctypes.c_size_t(1)))

    def put(self, data):
        for octet in data:
            self.change(0, 0)
            self.change(2, 1)
            self.change(0, octet + 1)

    def take(self):
        self.change(0, -1)
        octet = check(libc.semctl(self.id, 0, 12))  # GETVAL
        if octet:
            self.change(0, -octet)
        return bytes([octet])


class Event:
    """An octet at a time, as the value of one eventfd; another says that it was taken."""

    def __init__(self):
        self.value, self.taken = os.eventfd(0), os.eventfd(1)

    def put(self, data):
        for octet in data:
            os.eventfd_read(self.taken)
            os.eventfd_write(self.value, octet + 1)

    def take(self):
        octet = os.eventfd_read(self.value) - 1
        os.eventfd_write(self.taken, 1)
        return bytes([octet])


def take_in(store, port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port))
    s.listen()
    c, _ = s.accept()
    s.close()
    while data := c.recv(SIZE):
        store.put(data)


def pass_on(store, host, port):
    s = socket.create_connection((host, port))
    while True:
        s.sendall(store.take())


kind, number, way, *ends = sys.argv[1:]
if way == "both":
    store = Event() if kind == "eventfd" else mapped(os.memfd_create("keep"))
    if os.fork() == 0:
        take_in(store, int(ends[0]))
    elif os.fork() == 0:
        pass_on(store, ends[1], int(ends[2]))
    sys.exit()
store = {"sysv": sysv, "posix": posix, "mqueue": POSIXQueue, "msg": SysVQueue, "sem": Semaphores}[kind](int(number))
if way == "in":
    take_in(store, int(ends[0]))
else:
    pass_on(store, ends[0], int(ends[1]))
