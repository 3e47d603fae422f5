"""A private memcached or Redis on a free loopback port, for as long as a `with` block lasts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

CLIENTS = {"memcached": "pymemcache", "redis": "redis"}


@contextmanager
def running(kind: str, folder: str) -> Iterator[int]:
    """Start the server, hand out its port, and stop it whatever happens."""
    port = free_port()
    command = memcached(port) if kind == "memcached" else redis(port, folder)
    program, client = command[0], CLIENTS[kind]
    if not shutil.which(program):
        raise SystemExit(f"{program} is not installed. On Debian and Ubuntu: apt install {program}")
    if not importlib.util.find_spec(client):
        raise SystemExit(f"Django talks to {kind} through {client}: pip install {client}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(program, process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def memcached(port: int) -> list[str]:
    # As root, as in a container, it doesn't start unless told which user to be.
    user = ["-u", "root"] if os.geteuid() == 0 else []
    return ["memcached", "-l", "127.0.0.1", "-p", str(port), "-m", "256", *user]


def redis(port: int, folder: str) -> list[str]:
    in_memory = ["--save", "", "--appendonly", "no", "--dir", folder]
    return ["redis-server", "--bind", "127.0.0.1", "--port", str(port), *in_memory]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(program: str, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{program} did not start.")
