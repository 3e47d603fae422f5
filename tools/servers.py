"""Private memcached and Redis servers: on a free loopback port, in a directory of their own.

``python -m tools.servers install`` fetches the two programs where that is possible.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

HOST = "127.0.0.1"
PACKAGES = {"memcached": "memcached", "redis-server": "redis-server"}
START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
# Another process may take a free port before our server does.
PORT_ATTEMPTS = 5

AnyServer = TypeVar("AnyServer", bound="Server")


class ServerError(RuntimeError):
    """A server that didn't start."""


def missing_servers() -> list[str]:
    """The programs that aren't there."""
    return [program for program in PACKAGES if shutil.which(program) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _tied_to_us() -> list[str]:
    """A test run that is killed can't clean up behind itself; the kernel does it then."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


class Server:
    """A server process; a context manager that starts it and, whatever happens, stops it."""

    program: str
    ping: bytes
    pong: bytes

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def home(self) -> Path:
        assert self._home is not None, "not started"
        return Path(self._home.name)

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    def options(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start on a free port."""
        self._home = tempfile.TemporaryDirectory(prefix=f"fastblets-{self.program}-")
        try:
            for attempt in range(PORT_ATTEMPTS):
                self.port = free_port()
                try:
                    return self._launch()
                except ServerError:
                    if attempt == PORT_ATTEMPTS - 1:
                        raise
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Come back on the same port, with nothing remembered."""
        self.kill()
        self._launch()

    def kill(self) -> None:
        """End at once, as in a crash. Works on a frozen server too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
            self._process = None

    def stop(self) -> None:
        """End for good: nothing is left behind."""
        self.kill()
        if self._home is not None:
            self._home.cleanup()
            self._home = None

    def freeze(self) -> None:
        """Take connections, answer nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        # The signal takes its time, and another thread of the server may answer meanwhile.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(self.ping)
                return connection.recv(64).startswith(self.pong)
        except OSError:
            return False

    def _launch(self) -> None:
        log = self.home / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_tied_to_us(), self.program, *self.options()],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl+C is for pytest, which then stops us in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            # Our own process first: a stranger may be answering on that port.
            if self._process.poll() is not None:
                break
            if self.answers():
                return
            time.sleep(0.01)
        self.kill()
        raise ServerError(f"{self.program} didn't start:\n{log.read_text(errors='replace')}")

    def __enter__(self: AnyServer) -> AnyServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Memcached(Server):
    """memcached, its memory in megabytes, the size of its largest item as memcached writes it."""

    program = "memcached"
    ping = b"version\r\n"
    pong = b"VERSION"

    def __init__(self, *, memory: int = 64, item_size: str = "1m") -> None:
        super().__init__()
        self.memory = memory
        self.item_size = item_size

    def options(self) -> list[str]:
        options = ["-l", HOST, "-p", str(self.port), "-U", "0"]
        options += ["-m", str(self.memory), "-I", self.item_size]
        if os.geteuid() == 0:
            # It refuses to run as root unless told to.
            options += ["-u", "root"]
        return options


class Redis(Server):
    """A Redis server that never writes to disk, with more options of its own if need be."""

    program = "redis-server"
    ping = b"PING\r\n"
    pong = b"+PONG"

    def __init__(self, *more: str) -> None:
        super().__init__()
        self.more = more

    def options(self) -> list[str]:
        options = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.home)]
        return [*options, "--save", "", "--appendonly", "no", *self.more]

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"


class Sentinel(Server):
    """A Redis Sentinel that, alone, watches over a server and its replicas, and is quick to replace it."""

    program = "redis-server"
    ping = Redis.ping
    pong = Redis.pong

    def __init__(self, service: str, primary: Redis) -> None:
        super().__init__()
        self.service = service
        self.primary = primary

    def options(self) -> list[str]:
        # It keeps its state in there.
        config = self.home / "sentinel.conf"
        lines = [
            f"monitor {self.service} {HOST} {self.primary.port} 1",
            f"down-after-milliseconds {self.service} 500",
            f"failover-timeout {self.service} 2000",
        ]
        config.write_text("".join(f"sentinel {line}\n" for line in lines))
        return [str(config), "--sentinel", "--bind", HOST, "--port", str(self.port), "--dir", str(self.home)]


def _as_root() -> list[str] | None:
    """What to put in front of a command to run it as root; None where we may not."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    if shutil.which("sudo") and subprocess.run([*sudo, "true"], capture_output=True).returncode == 0:
        return sudo
    return None


def install() -> None:
    """Install what is missing where we may, and say what to install otherwise."""
    packages = [PACKAGES[program] for program in missing_servers()]
    if not packages:
        return
    prefix = _as_root()
    if shutil.which("apt-get") and prefix is not None:
        apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
        for step in (["update"], ["install", "--no-install-recommends", *packages]):
            subprocess.run([*apt, *step], timeout=600, check=False)
    if missing := missing_servers():
        print(f"Please install: {' '.join(PACKAGES[program] for program in missing)}")


def main(arguments: Sequence[str]) -> int:
    if list(arguments) != ["install"]:
        print("usage: python -m tools.servers install")
        return 2
    try:
        install()
    except (OSError, subprocess.SubprocessError) as error:
        # Tests that need a server say so themselves; a build without them still is one.
        print(f"The cache servers couldn't be installed: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
