"""The limit that a memcached server says it has, or says nothing of."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from fastblets.memcached import get_item_limit
from tools.servers import Memcached, missing_servers


@pytest.mark.parametrize(("size", "limit"), [("512k", 2**19), ("1m", 2**20), ("2m", 2**21)])
def test_a_server_says_its_limit(size: str, limit: int) -> None:
    if Memcached.program in missing_servers():
        pytest.skip("memcached isn't installed")
    with Memcached(item_size=size) as server:
        assert get_item_limit(server.address) == limit


@pytest.mark.parametrize("state", ["down", "frozen"])
def test_a_server_that_says_nothing(state: str) -> None:
    if Memcached.program in missing_servers():
        pytest.skip("memcached isn't installed")
    with Memcached() as server:
        if state == "down":
            server.kill()
        else:
            server.freeze()
        assert get_item_limit(server.address) is None


@pytest.mark.parametrize("address", ["nowhere.invalid:11211", "no port", "unix:/nowhere/at/all", "/nowhere", "[::1]:1"])
def test_an_address_without_a_server(address: str) -> None:
    assert get_item_limit(address) is None


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("localhost", ("localhost", 11211)),
        ("localhost:1234", ("localhost", 1234)),
        ("[::1]:1234", ("::1", 1234)),
    ],
)
def test_which_server_is_asked(address: str, asked: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []

    def connect(server: object, timeout: float) -> socket.socket:
        connected.append(server)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    assert get_item_limit(address) is None
    assert connected == [asked]


def test_a_server_that_talks_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"STAT x y\r\n")
                        time.sleep(0.01)
                except OSError:
                    pass

        threading.Thread(target=talk, daemon=True).start()
        assert get_item_limit(f"127.0.0.1:{listener.getsockname()[1]}") is None


def test_a_system_without_sockets_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    assert get_item_limit("unix:/tmp/memcached.sock") is None


@pytest.mark.linux("sockets in files")
@pytest.mark.parametrize("prefix", ["unix:", ""])
def test_a_memcached_at_a_socket(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(64) == b"stats settings\r\n"
                connection.sendall(b"STAT maxbytes 1\r\nSTAT item_size_max 1000\r\nEND\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert get_item_limit(f"{prefix}{path}") == 1000
