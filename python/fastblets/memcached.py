"""Asking a memcached server for its limit, for the system checks.

The cache's client is not used: each client has another way of asking, and its timeouts are the project's to set.
"""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final


#: For how long, in seconds, a server is asked.
_PATIENCE: Final = 1.0

#: The most bytes that are read of an answer.
_MOST_BYTES: Final = 65536


def get_item_limit(server: str) -> int | None:
    """Return the size in bytes of the largest item that a server takes, None if it doesn't answer.

    Args:
        server: Its address, as in Django's ``LOCATION``: ``host:port``, ``unix:/path`` or ``/path``.
    """
    try:
        answer = _ask(server, b"stats settings\r\n")
    except (OSError, ValueError):
        return None

    found = re.search(rb"^STAT item_size_max (\d{1,18})\r$", answer, re.MULTILINE)

    return int(found[1]) if found else None


def _ask(server: str, question: bytes) -> bytes:
    deadline = time.monotonic() + _PATIENCE
    answer = b""

    with _connect(server) as connection:
        connection.sendall(question)

        while not answer.endswith((b"END\r\n", b"ERROR\r\n")) and len(answer) < _MOST_BYTES:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = connection.recv(4096)

            if not piece:
                break

            answer += piece

    return answer


def _connect(server: str) -> socket.socket:
    path = server.removeprefix("unix:")

    if not path.startswith("/"):
        host, _, port = server.rpartition(":")

        return socket.create_connection((host.strip("[]"), int(port)) if host else (server, 11211), _PATIENCE)

    if not hasattr(socket, "AF_UNIX"):
        raise OSError("Windows has no sockets in files.")

    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_PATIENCE)

    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise

    return connection
