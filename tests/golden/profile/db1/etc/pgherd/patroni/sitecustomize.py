# Written by pgherd; a change made here is undone by its next run.
"""Keeps room in Patroni's REST interface for the cluster's own hosts.

Patroni answers with a fixed number of threads, and each of them waits for its client without end. Whoever
opened a few connections and said nothing would keep HAProxy from its checks, and with it every client from
the database. Python runs this file when Patroni starts, since the unit has its folder in PYTHONPATH.

A connection of a stranger ends after some seconds; there is a bound for each address, and one for all
strangers together. A stranger is who does not stand in /etc/hosts, where pgherd notes the cluster's hosts.
"""

import os
import socket
import socketserver
import threading
import weakref

# PostgreSQL, and whatever else Patroni starts, has nothing to do with this.
os.environ.pop("PYTHONPATH", None)

HOSTS = "/etc/hosts"
# Together they are fewer than the threads in patroni.yml.
OF_ONE_HOST = 16
OF_ONE_STRANGER = 4
OF_ALL_STRANGERS = 16
SECONDS = 10

lock = threading.Lock()
# Each open connection: its address, and what ends it if that is a stranger's. One whose TLS handshake fails is
# forgotten by itself: older versions of Patroni drop it without a word.
connections = weakref.WeakKeyDictionary()
known = (None, frozenset())


def hosts():
    """The addresses of /etc/hosts, read again when it has changed: a change of address restarts nothing."""
    global known
    try:
        changed = os.stat(HOSTS).st_mtime_ns
        if changed != known[0]:
            with open(HOSTS, encoding="utf-8", errors="replace") as lines:
                words = [line.split() for line in lines]
            known = (changed, frozenset(found[0] for found in words if found))
    except OSError:
        pass
    return known[1]


def end(reference):
    """Wakes whoever waits for the client, also in the middle of a TLS handshake."""
    connection = reference()
    try:
        if connection is not None:
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass


def verify_request(server, request, client_address):
    address = client_address[0]
    stranger = address not in hosts()
    with lock:
        others = [entry for connection, entry in connections.items() if connection.fileno() >= 0]
        same = sum(1 for other, _ in others if other == address)
        strangers = sum(1 for _, timer in others if timer)
        if same >= (OF_ONE_STRANGER if stranger else OF_ONE_HOST):
            return False
        if stranger and strangers >= OF_ALL_STRANGERS:
            return False
        timer = threading.Timer(SECONDS, end, [weakref.ref(request)]) if stranger else None
        connections[request] = (address, timer)
    if timer:
        timer.daemon = True
        timer.start()
    return True


def shutdown_request(server, request):
    with lock:
        _, timer = connections.pop(request, (None, None))
    if timer:
        timer.cancel()
    close(server, request)


# What Python's documentation offers for a server to decide whom it serves; Patroni has neither of its own.
close = socketserver.TCPServer.shutdown_request
socketserver.TCPServer.shutdown_request = shutdown_request
socketserver.BaseServer.verify_request = verify_request
