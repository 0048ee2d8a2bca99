"""Build steps beside pyproject.toml: the OPA library is built, and the wheel is for one platform."""

import re
import runpy
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

BRIDGE = Path(__file__).parent / "gateway" / "policy" / "engines" / "opa_bridge"


class BuildWithLibrary(build_py):
    """Builds the library first, so that it is among the package's data."""

    def run(self) -> None:
        """Build it where it is missing or of other sources."""
        if not self.editable_mode:
            runpy.run_path(str(BRIDGE / "build.py"))["build"]()
        super().run()


class PlatformWheel(bdist_wheel):
    """A wheel for every Python 3 of one platform: the library speaks C, not Python's interface."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3, no ABI, and the oldest glibc that the library's symbols ask for."""
        platform = super().get_tag()[2]
        library = BRIDGE / "libopa_bridge.so"
        # An editable install comes before the library: `make setup` builds it next.
        versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", library.read_bytes()) if library.exists() else []
        if platform.startswith("linux_") and versions:
            major, minor = max((int(major), int(minor)) for major, minor in versions)
            platform = f"manylinux_{major}_{minor}_{platform.removeprefix('linux_')}"
        return "py3", "none", platform


class PlatformDistribution(Distribution):
    """A distribution that is not pure Python."""

    def has_ext_modules(self) -> bool:
        """The wheel carries a library."""
        return True


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel})
