#!/usr/bin/python3
"""flicker passes on what it reads, and all the time has children that hold the same pipes for a moment. Every
other one runs another program.
"""
import os
import select

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
    for _ in range(2):  # more at once would be a hub
        os.wait()
