#!/usr/bin/python3
"""The processes of thesis figure 3.6: resolve DIR PORT HOST HOSTPORT.

P1 listens on PORT. Once somebody has connected, the others are made and P4 connects to HOST. What comes
in leaves through P1, P2, P5, P8 and P4. Each process writes its pid to DIR/P<number>.
"""
import os
import signal
import socket
import sys

directory, port, host, host_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])


def name(label):
    with open(os.path.join(directory, label), "w") as f:
        f.write(str(os.getpid()))


def copy(source, sink):
    while data := os.read(source, 4096):
        os.write(sink, data)
    os._exit(0)


def stay():
    signal.pause()


def child(keep):
    """Forks; the child keeps only these descriptors."""
    pid = os.fork()
    if pid == 0:
        limit(keep)
    return pid == 0


def limit(keep):
    for fd in [int(n) for n in os.listdir("/proc/self/fd")]:
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass  # that of the listing


def orphan(keep):
    """Forks a leader of a process group whose parent is init."""
    if os.fork() == 0:
        if os.fork() > 0:
            os._exit(0)
        os.setpgid(0, 0)
        limit(keep)
        return True
    os.wait()
    return False


def listen(address, port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen()
    return s


def p3():
    a_read, a_write = os.pipe()
    if child([l8012.fileno(), a_write]):
        p5(a_write)
    if child([a_read, a_write]):
        p4(a_read, a_write)
    limit([])
    name("P3")
    stay()


def p4(a_read, a_write):
    c_read, c_write = os.pipe()
    if child([c_read]):
        if child([c_read]):
            name("P9")
            stay()
        limit([])
        name("P6")
        stay()
    if child([a_write, c_write]):
        if child([a_write, c_write]):
            p10(a_write, c_write)
        limit([])
        name("P7")
        stay()
    limit([a_read])
    out = socket.create_connection((host, host_port))
    name("P4")
    copy(a_read, out.fileno())


def p10(a_write, c_write):
    b_read, b_write = os.pipe()
    if child([b_read]):
        name("P11")
        stay()
    if child([a_write, b_write]):
        name("P12")
        stay()
    limit([c_write])
    name("P10")
    stay()


def p5(a_write):
    d_read, d_write = os.pipe()
    if child([d_read, a_write]):
        name("P8")
        copy(d_read, a_write)
    limit([l8012.fileno(), d_write])
    name("P5")
    from_p2, _ = l8012.accept()
    copy(from_p2.fileno(), d_write)


l8010 = listen("0.0.0.0", port)
attacker, _ = l8010.accept()
l8011, l8012 = listen("127.0.0.1", port + 1), listen("127.0.0.1", port + 2)
if orphan([l8012.fileno()]):
    p3()
if orphan([l8011.fileno()]):
    from_p1, _ = l8011.accept()
    to_p5 = socket.create_connection(("127.0.0.1", port + 2))
    name("P2")
    copy(from_p1.fileno(), to_p5.fileno())
to_p2 = socket.create_connection(("127.0.0.1", port + 1))
limit([l8010.fileno(), attacker.fileno(), to_p2.fileno()])
name("P1")
copy(attacker.fileno(), to_p2.fileno())
