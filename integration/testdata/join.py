#!/usr/bin/python3
"""join KIND PORT HOST HOSTPORT has two processes, of which one takes what comes to PORT and the other passes it on. What joins
them is of a KIND. The pid of the other is printed.

own    memory of which the other has mapped a copy of its own, which shows what the first writes
none   memory that may be neither read nor written but while that is done
ended  memory of processes whose first threads have ended
ring   the memory of an io_uring instance, without a descriptor of it
"""
import ctypes
import os
import signal
import socket
import sys
import threading
import time

SIZE = 4096
NONE, READ, BOTH = 0, 1, 3  # PROT_
SHARED, PRIVATE = 1, 2  # MAP_
SQES = 0x10000000  # IORING_OFF_SQES
IO_URING_SETUP = 425
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def check(result):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def end_with(parent):
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)


class Memory:
    """One message at a time: how many there were, its length, its text. Its descriptor is closed once it is mapped."""

    def __init__(self, fd, protection, flags=SHARED, offset=0, hides=False):
        self.address = check(libc.mmap(None, SIZE, protection, flags, fd, offset))
        os.close(fd)
        self.text = (ctypes.c_ubyte * SIZE).from_address(self.address)
        self.hides, self.seen = hides, 0

    def may(self, protection):
        if self.hides:
            check(libc.mprotect(ctypes.c_void_p(self.address), SIZE, protection))

    def put(self, data):
        self.may(BOTH)
        self.text[2:2 + len(data)] = data
        self.text[1] = len(data)
        self.text[0] += 1
        self.may(NONE)

    def take(self):
        while True:
            self.may(READ)
            count, data = self.text[0], bytes(self.text[2:2 + self.text[1]])
            self.may(NONE)
            if count != self.seen:
                self.seen = count
                return data
            time.sleep(0.05)


def near(put):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port))
    s.listen()
    c, _ = s.accept()
    s.close()
    while data := c.recv(200):
        put(data)


def far(take):
    s = socket.create_connection((host, host_port))
    print("far", os.getpid(), flush=True)
    while True:
        s.sendall(take())


def memory():
    fd = os.memfd_create("join")
    os.ftruncate(fd, SIZE)
    return [fd], lambda: near(Memory(fd, BOTH).put), lambda: far(Memory(fd, BOTH).take)


def own():
    (fd,), put, _ = memory()
    return [fd], put, lambda: far(Memory(fd, READ, PRIVATE).take)


def none():
    (fd,), _, _ = memory()
    return [fd], lambda: near(Memory(fd, NONE, hides=True).put), lambda: far(Memory(fd, NONE, hides=True).take)


def ended():
    fds, put, take = memory()

    def without_first(f):
        def run():
            parent = os.getppid()
            threading.Thread(target=lambda: (end_with(parent), f())).start()
            libc.syscall(60, 0)  # exit(2), of this thread alone
        return run
    return fds, without_first(put), without_first(take)


def ring():
    fd = check(libc.syscall(IO_URING_SETUP, 64, ctypes.create_string_buffer(120)))
    return [fd], lambda: near(Memory(fd, BOTH, offset=SQES).put), lambda: far(Memory(fd, BOTH, offset=SQES).take)


kind, port, host, host_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
fds, *ends = {"own": own, "none": none, "ended": ended, "ring": ring}[kind]()
me = os.getpid()
for end in ends:
    if os.fork() == 0:
        end_with(me)
        end()
        os._exit(0)
for fd in fds:
    os.close(fd)
os.wait()
