"""An edge in a process of its own, under `python -O`, for what only a process can show: its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.edge_world import Certificates, World
from tests.support.paths import ROOT


class EdgeProcess:
    """Runs `python -O -m tests.support.edge_process FOLDER URL PROTOCOL`, which prints its port.

    It lives until its input ends.
    """

    def __init__(self, certificates: Certificates, folder: Path, url: str, protocol: str) -> None:
        self.certificates = certificates
        self.process = subprocess.Popen(
            [sys.executable, "-O", "-m", "tests.support.edge_process", str(folder), url, protocol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self.process.stdout
        self.port = int(json.loads(self.process.stdout.readline())["port"])

    def rss_mib(self) -> float:
        """Resident memory now."""
        return self._status("VmRSS:")

    def _status(self, name: str) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(name))

    def forget_most(self) -> None:
        """Begin to measure `most_mib` anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    def most_mib(self) -> float:
        """The most that has been resident since."""
        return self._status("VmHWM:")

    def stop(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def main() -> None:
    folder, url, protocol = sys.argv[1:]
    world = World(Path(folder), Certificates.make(Path(folder)))
    running = world.edge(url, upstream={"protocol": protocol}, route={"body_limit_bytes": 1 << 40})
    sys.stdout.write(json.dumps({"port": running.port}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    crashes = world.stop_edges()
    sys.stderr.write("\n".join(crashes[:3]))
    world.close()
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    main()
