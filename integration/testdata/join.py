#!/usr/bin/python3
"""join KIND PORT HOST HOSTPORT has two processes, of which one takes what comes to PORT and the other passes it on. What joins
them is of a KIND. The pid of the other is printed.

own    memory of which the other has mapped a copy of its own, which shows what the first writes
none   memory that may be neither read nor written but while that is done
ended  memory of processes whose first threads have ended
ring   the memory of an io_uring instance, without a descriptor of it
lite   two UDP-Lite sockets
self   one UDP socket, connected to its own address
heard  one UDP socket, connected to none
hop    nothing: both connections are with the one and then with the other, all the time

and of one process that has both connections:

park    that with PORT is on its way through a UNIX socket but for moments
mapped  that with HOST is mapped, and has no descriptor
table   both are in the table of an io_uring instance of which there is no descriptor
"""
import ctypes
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

SIZE = 4096
NONE, READ, BOTH = 0, 1, 3  # PROT_
SHARED, PRIVATE = 1, 2  # MAP_
SQES = 0x10000000  # IORING_OFF_SQES
IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 425, 426, 427
UDPLITE = 136
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


def datagrams(protocol=0):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, protocol)
    s.bind(("127.0.0.1", 0))
    return s


def lite():
    a, b = datagrams(UDPLITE), datagrams(UDPLITE)
    a.connect(b.getsockname())
    b.connect(a.getsockname())
    return [a.fileno(), b.fileno()], lambda: (b.close(), near(a.send)), lambda: (a.close(), far(lambda: b.recv(200)))


def itself():
    s = datagrams()
    s.connect(s.getsockname())
    return [s.fileno()], lambda: near(s.send), lambda: far(lambda: s.recv(200))


def heard():
    s = datagrams()
    return [s.fileno()], lambda: near(lambda data: s.sendto(data, s.getsockname())), lambda: far(lambda: s.recv(200))


def hop():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def take_turns(mine, other, have):
        other.close()
        while True:
            if not have:
                have = [socket.socket(fileno=fd) for fd in socket.recv_fds(mine, 1, 2)[1]]
            if select.select([have[0]], [], [], 0.002)[0]:
                have[1].sendall(have[0].recv(200))
            socket.send_fds(mine, [b"x"], [s.fileno() for s in have])
            for s in have:
                s.close()
            have = None

    def begin():
        print("far 0", flush=True)
        s = socket.create_server(("0.0.0.0", port))
        take_turns(*pair, [s.accept()[0], socket.create_connection((host, host_port))])
    return [s.fileno() for s in pair], begin, lambda: take_turns(*reversed(pair), None)


def both():
    s = socket.create_server(("0.0.0.0", port))
    c, _ = s.accept()
    s.close()
    print("far", os.getpid(), flush=True)
    return c, socket.create_connection((host, host_port))


def park():
    to, back = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def run():
        c, out = both()
        while True:
            socket.send_fds(to, [b"x"], [c.fileno()])
            c.close()
            time.sleep(0.5)
            c = socket.socket(fileno=socket.recv_fds(back, 1, 1)[1][0])
            if select.select([c], [], [], 0)[0]:
                out.sendall(c.recv(200))
    return [to.fileno(), back.fileno()], run


def mapped():
    def run():
        c, out = both()
        out.sendall(c.recv(200))
        Memory(out.detach(), READ)
        c.recv(200)
    return [], run


def table():
    def run():
        both_ends = both()
        parameters = ctypes.create_string_buffer(120)
        fd = check(libc.syscall(IO_URING_SETUP, 8, parameters))
        sq = struct.unpack_from("10I", parameters.raw, 40)  # struct io_sqring_offsets
        cq = struct.unpack_from("10I", parameters.raw, 80)
        both_fds = struct.pack("2i", *(s.fileno() for s in both_ends))
        check(libc.syscall(IO_URING_REGISTER, fd, 2, both_fds, 2))  # IORING_REGISTER_FILES
        # IORING_REGISTER_RING_FDS, for one and a number that the kernel chooses
        update = ctypes.create_string_buffer(struct.pack("IIQ", 0xffffffff, 0, fd))
        check(libc.syscall(IO_URING_REGISTER, fd, 20, update, 1))
        registered, = struct.unpack_from("I", update.raw)
        rings = check(libc.mmap(None, 2 * SIZE, BOTH, SHARED, fd, 0))
        entries = Memory(fd, BOTH, offset=SQES).address  # closes it
        for s in both_ends:
            s.close()
        text = ctypes.create_string_buffer(200)

        def at(offset):
            return ctypes.c_uint.from_address(rings + offset)

        def do(operation, index, size):
            tail = at(sq[1])
            n = tail.value & at(sq[2]).value
            entry = struct.pack("BBHiQQIIQ24x", operation, 1, 0, index, 0, ctypes.addressof(text), size, 0, 0)  # IOSQE_FIXED_FILE
            ctypes.memmove(entries + 64 * n, entry, 64)
            at(sq[6] + 4 * n).value = n
            tail.value += 1
            # IORING_ENTER_GETEVENTS, IORING_ENTER_REGISTERED_RING
            check(libc.syscall(IO_URING_ENTER, registered, 1, 1, 1 | 16, None, 0))
            head = at(cq[0])
            result = ctypes.c_int.from_address(rings + cq[5] + 16 * (head.value & at(cq[2]).value) + 8).value
            head.value += 1
            return result
        while (n := do(27, 0, 200)) > 0:  # IORING_OP_RECV
            do(26, 1, n)  # IORING_OP_SEND
    return [], run


kind, port, host, host_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
fds, *ends = {"own": own, "none": none, "ended": ended, "ring": ring, "lite": lite, "self": itself, "heard": heard, "hop": hop,
              "park": park, "mapped": mapped, "table": table}[kind]()
me = os.getpid()
for end in ends:
    if os.fork() == 0:
        end_with(me)
        end()
        os._exit(0)
for fd in fds:
    os.close(fd)
os.wait()
