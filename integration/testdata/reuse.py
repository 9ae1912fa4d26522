#!/usr/bin/python3
"""reuse FIRST makes the kernel give the pids from FIRST on again and again, in its own PID namespace. It prints a
line once the first was given twice.
"""
import os
import sys

first = int(sys.argv[1])


def again():
    with open("/proc/sys/kernel/ns_last_pid", "w") as f:
        f.write(str(first - 1))


seen = 0
while True:
    again()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    if seen < 2 and pid == first:
        seen += 1
        if seen == 2:
            print("again", flush=True)
