#!/usr/bin/python3
"""flicker passes on what it reads, and all the time has children that hold the same pipes for a moment. Every
other one runs another program.
"""
import os
import select
import signal

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if select.select([0], [], [], 0)[0]:
        data = os.read(0, 4096)
        if not data:
            break
        os.write(1, data)
    for argv in None, ["true"]:
        if os.fork() == 0:
            if argv:
                os.execv("/bin/true", argv)
            os._exit(0)
