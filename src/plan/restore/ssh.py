#!/usr/bin/python3
# Written by pgherd, and removed when the clone is complete.
"""Takes ssh's place for pgBackRest: leads it through pgherd to the repository of the cluster that is cloned.

pgherd itself runs pgBackRest there. It learns from here only what is read, and the number of the process."""
import os, re, socket, sys, threading

SOCKET = "/run/pgherd-clone/socket"
words = re.fullmatch(r"pgbackrest .*--process=(\d+) .*\b(restore|archive-get):remote", sys.argv[-1])
if not words:
    sys.exit("pgherd leads only to what a restore reads")
link = socket.socket(socket.AF_UNIX)
try:
    link.connect(SOCKET)
except OSError as error:
    sys.exit("pgherd is gone, and with it the way to the repository: %s" % error)
# Where the cluster keeps its backups in two places, pgBackRest says which it reads.
repository = re.search(r" --repo=([2-9]) ", words[0])
link.sendall(("%s %s%s\n" % (words[2], words[1], " " + repository[1] if repository else "")).encode())


def send():
    while True:
        data = os.read(0, 1 << 16)
        if not data:
            break
        link.sendall(data)
    link.shutdown(socket.SHUT_WR)


threading.Thread(target=send, daemon=True).start()
while True:
    data = link.recv(1 << 16)
    if not data:
        break
    while data:
        data = data[os.write(1, data):]
