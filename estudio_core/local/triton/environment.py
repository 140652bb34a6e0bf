"""The virtual environment of the local Triton server; it cannot be Estudio's own, because it needs numpy 1."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from estudio_core.errors import MissingDependencyError

logger = logging.getLogger(__name__)

REQUIREMENTS = ("nvidia-pytriton==0.7.0", "onnxruntime>=1.24,<2", "numpy<2")
"""tritonserver 2.51 (Triton 24.10). With numpy 2 its Python backend returns empty tensors."""

PYTHONS = ("3.11", "3.12")
"""Versions for which the server has a Python backend and numpy 1 has packages."""

INSTALL_TIMEOUT_S = 1800


@dataclass(frozen=True)
class TritonEnvironment:
    """A prepared environment.

    Attributes:
        folder: Root of the virtual environment.
        site_packages: Where its packages are.
        library_folder: Where `libpython` of the base interpreter is.
        python_version: "3.11" or "3.12".
    """

    folder: Path
    site_packages: Path
    library_folder: Path
    python_version: str

    @property
    def server_binary(self) -> Path:
        """The tritonserver executable."""
        return self.site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder that the server takes its backends from."""
        return self.folder / "backends"

    def process_environment(self) -> dict[str, str]:
        """Return the environment variables that the server needs, on top of those of this process."""
        libraries = [str(self.site_packages / "nvidia_pytriton.libs"), str(self.library_folder)]
        if os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(os.environ["LD_LIBRARY_PATH"])
        kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
        return {
            **kept,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # The backend's processes find their packages through the first python3 on PATH.
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath)]),
            "VIRTUAL_ENV": str(self.folder),
        }


def prepare(folder: Path) -> TritonEnvironment:
    """Install the server into `folder` unless it is there, and return it. About 500 MB; one to three minutes.

    Safe to run again, beside another run, and after a killed one.

    Raises:
        MissingDependencyError: there is no fitting Python, or the packages cannot be installed.
    """
    if sys.platform != "linux":
        raise MissingDependencyError(
            "The local Triton server runs on Linux only. Use ESTUDIO_INFERENCE=embedded here, or Triton's container."
        )
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        version = _python_version(folder) if is_installed(folder) else _install(folder)
        environment = TritonEnvironment(
            folder=folder,
            site_packages=folder / "lib" / f"python{version}" / "site-packages",
            library_folder=Path((folder / "library_folder").read_text()),
            python_version=version,
        )
        _write_backends(environment)
    return environment


def _install(folder: Path) -> str:
    """Create the environment, the mark of completeness last; return its Python version."""
    python, version = _find_python()
    shutil.rmtree(folder, ignore_errors=True)
    logger.info("Installing the local Triton server into %s (about 500 MB)", folder)
    _run([python, "-m", "venv", str(folder)])
    uv = shutil.which("uv")
    target = folder / "bin" / "python"
    install = [uv, "pip", "install", "--python", str(target)] if uv else [str(target), "-m", "pip", "install"]
    _run([*install, "--quiet", *REQUIREMENTS])
    library_folder = _run([python, "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"]).strip()
    (folder / "library_folder").write_text(library_folder)
    _mark(folder).write_text(version)
    return version


def _find_python() -> tuple[str, str]:
    """Return an interpreter that the server supports, this one first, and its version."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own in PYTHONS:
        return getattr(sys, "_base_executable", sys.executable), own
    for version in PYTHONS:
        found = shutil.which(f"python{version}")
        if found:
            return found, version
    raise MissingDependencyError(
        f"The local Triton server needs Python {' or '.join(PYTHONS)}; this is {own}, none is on PATH. Install one, "
        "use ESTUDIO_INFERENCE=embedded, or Triton's container."
    )


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingDependencyError(f"The local Triton server cannot be installed: {error}") from error
    if done.returncode != 0:
        last = " ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise MissingDependencyError(
            f"The local Triton server cannot be installed: `{' '.join(command)}` says {last!r}. Correct that and run "
            "`python -m estudio_core.local.triton prepare` again, or use ESTUDIO_INFERENCE=embedded."
        )
    return done.stdout


def _write_backends(environment: TritonEnvironment) -> None:
    """Put the server's Python backend and our ONNX Runtime backend where the server looks for them."""
    tritonserver = environment.site_packages / "pytriton" / "tritonserver"
    python_backend = environment.backends / "python"
    if not python_backend.is_dir():
        partial = environment.backends / ".python.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(tritonserver / "backends" / "python", partial)
        stub = tritonserver / "python_backend_stubs" / environment.python_version / "triton_python_backend_stub"
        shutil.copy2(stub, partial / "triton_python_backend_stub")
        partial.rename(python_backend)
    source = Path(__file__).parent / "onnxruntime_backend" / "model.py"
    target = environment.backends / "onnxruntime" / "model.py"
    if not target.exists() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        shutil.copyfile(source, partial)
        partial.replace(target)


def _mark(folder: Path) -> Path:
    """Return the file that says that these requirements are installed completely."""
    return folder / f"complete-{hashlib.sha256(' '.join(REQUIREMENTS).encode()).hexdigest()[:12]}"


def is_installed(folder: Path) -> bool:
    """Return whether `prepare` has nothing to install into `folder`."""
    return _mark(folder).is_file() and (folder / "bin" / "python").exists()


def _python_version(folder: Path) -> str:
    return _mark(folder).read_text().strip()
