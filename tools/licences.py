"""The licences of what is linked into the wheels: ``python -m tools.licences`` writes THIRD-PARTY.txt.

What is linked in are the crates that Cargo.lock pins, as far as they are neither for building nor for testing.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NOTICES = ROOT / "THIRD-PARTY.txt"
PLATFORMS = (
    "aarch64-apple-darwin",
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "x86_64-apple-darwin",
    "x86_64-pc-windows-msvc",
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
)
#: Each crate offers one of these; the first that it offers is the one that we take.
FILES = {"MIT": ["LICENSE-MIT", "LICENSE-MIT.txt", "LICENSE"], "Zlib": ["LICENSE"], "BSL-1.0": ["LICENSE-BOOST"]}
RULE = "=" * 100

HEAD = """\
fastblets is under the MIT licence, see LICENSE. Its wheels have the software of others linked in, under the licences
that follow. Written by `make licences` from Cargo.lock.

The Rust standard library is linked in too. It is by the Rust Project's contributors, under the MIT licence, whose terms
are those in LICENSE.
"""
ZLIB = """\
zlib

None of zlib's C code is linked in. src/zlib/deflate takes each of the decisions that zlib takes at level 6, so that its
output is zlib's to the byte: its algorithm is that of zlib 1.2 and 1.3, by Jean-loup Gailly and Mark Adler, written
anew in Rust. It is not the original software. zlib's licence:
"""


@dataclass(frozen=True, order=True)
class Crate:
    """A crate that is linked in."""

    name: str
    version: str
    licence: str
    directory: Path

    def notice(self) -> str:
        return f"{self.name} {self.version}\n{self.licence}; taken under {self._taken()[0]}\n\n{self._text()}"

    def _taken(self) -> tuple[str, Path]:
        offered = self.licence.replace("/", " OR ").split(" OR ")
        for licence, names in FILES.items():
            for path in (self.directory / name for name in names if licence in offered):
                if path.exists():
                    return licence, path
        raise LookupError(f"{self.name} has no file for any of {', '.join(FILES)}, but {self.licence}")

    def _text(self) -> str:
        return _tidy(self._taken()[1])


def _tidy(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").replace("\f", "").splitlines()
    return textwrap.dedent("\n".join(line.rstrip() for line in lines)).strip() + "\n"


def _metadata(platform: str) -> Any:
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--features=python", "--filter-platform"]
    done = subprocess.run([*command, platform], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout)


def _linked(platform: str) -> Iterator[Crate]:
    metadata = _metadata(platform)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    seen = {metadata["resolve"]["root"]}
    left = list(seen)
    while left:
        for dependency in nodes[left.pop()]["deps"]:
            package = packages[dependency["pkg"]]
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            runs_in_the_compiler = any("proc-macro" in target["kind"] for target in package["targets"])
            if normal and not runs_in_the_compiler and package["id"] not in seen:
                seen.add(package["id"])
                left.append(package["id"])
                directory = Path(package["manifest_path"]).parent
                yield Crate(package["name"], package["version"], package["license"], directory)


def linked() -> list[Crate]:
    """All crates that are linked into a wheel."""
    return sorted({crate for platform in PLATFORMS for crate in _linked(platform)})


def _zlib() -> str:
    # The tests compile it; it comes with its licence.
    (package,) = [package for package in _metadata(PLATFORMS[0])["packages"] if package["name"] == "libz-sys"]
    return ZLIB + "\n" + _tidy(Path(package["manifest_path"]).parent / "src" / "zlib" / "LICENSE")


def notices() -> str:
    """What THIRD-PARTY.txt has to say."""
    return f"\n{RULE}\n\n".join([HEAD, _zlib(), *(crate.notice() for crate in linked())])


if __name__ == "__main__":
    NOTICES.write_text(notices(), encoding="utf-8")
