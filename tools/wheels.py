"""Fetches the wheels of wheels.sha256, the native parts of a build, and takes files out of them.

A wheel that lies in .cache/wheels with the right sum is used without asking anybody, so a second
build needs no network. Else pip fetches it: the system's, or one in a virtual environment of its
own where the system has none. Python's standard library only.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
PINS = pathlib.Path(__file__).with_name("wheels.sha256")

# Go's name of an architecture, and the one wheels use.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Failed(Exception):
    """What went wrong, in one sentence for the person at the terminal."""


def main(run):
    """Ends the process with run's result, or with one line that says what failed."""
    try:
        sys.exit(run())
    except Failed as e:
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {e}")
    except OSError as e:
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {e.strerror}: {e.filename}")
    except KeyboardInterrupt:
        sys.exit(130)


def say(text):
    print(text, file=sys.stderr, flush=True)


def here():
    """This machine's architecture, by Go's name."""
    machine = os.uname().machine
    for arch, name in MACHINES.items():
        if machine in (arch, name):
            return arch
    raise Failed(f"there is no ONNX Runtime and no compiler for {machine} here; Zarpa builds on x86-64 and arm64")


def pin(package, arch):
    """The pinned wheel of a package: its file name and SHA-256."""
    for line in PINS.read_text().splitlines():
        digest, name = line.split()
        if name.startswith(package + "-") and MACHINES[arch] in name:
            return name, digest
    raise Failed(f"{PINS.name} has no {package} for {arch}")


def version(package, arch="amd64"):
    return pin(package, arch)[0].split("-")[1]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(package, arch):
    """The path of a pinned wheel whose sum was just checked."""
    name, digest = pin(package, arch)
    path = CACHE / "wheels" / name
    if path.exists() and sha256(path) == digest:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"fetching {package} {version(package, arch)} for {arch}")
    with tempfile.TemporaryDirectory(dir=path.parent) as tmp:
        download(name, digest, tmp)
        got = pathlib.Path(tmp, name)
        if not got.exists():
            raise Failed(f"pip brought {os.listdir(tmp)} instead of {name}")
        if sha256(got) != digest:
            raise Failed(f"{name} is not the file that {PINS.name} names: SHA-256 {sha256(got)}")
        os.replace(got, path)
    return path


def download(name, digest, folder):
    """Lets pip fetch one wheel, named by its file, into a folder."""
    package, number, python, _, platforms = name.removesuffix(".whl").split("-")
    cpython = re.fullmatch(r"cp(\d)(\d+)", python)
    pins = pathlib.Path(folder, "requirements.txt")
    pins.write_text(f"{package}=={number} --hash=sha256:{digest}\n")
    command = pip() + ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
                       "--require-hashes", "--requirement", str(pins), "--dest", folder,
                       "--python-version", f"{cpython[1]}.{cpython[2]}" if cpython else "3.11"]
    for platform in platforms.split("."):
        command += ["--platform", platform]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise Failed(f"pip could not fetch {name}; is there a way to the package index? "
                     f"A copy in {CACHE.relative_to(ROOT) / 'wheels'} is used without one")


def pip():
    """The command line of a pip that runs."""
    def runs(python):
        return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0

    if runs(sys.executable):
        return [sys.executable, "-m", "pip"]
    own = CACHE / "venv" / "bin" / "python"
    if not (own.exists() and runs(own)):
        shutil.rmtree(CACHE / "venv", ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(CACHE / "venv")], capture_output=True, check=False)
        if made.returncode != 0 or not runs(own):
            shutil.rmtree(CACHE / "venv", ignore_errors=True)
            raise Failed("this Python has neither pip nor venv to fetch packages with: apt-get install python3-venv")
    return [str(own), "-m", "pip"]


def take(wheel, member, path, mode=0o644):
    """Takes one file out of a wheel, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, tmp = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with zipfile.ZipFile(wheel) as z, z.open(member) as src, os.fdopen(handle, "wb") as dst:
            shutil.copyfileobj(src, dst, 1 << 20)
        os.chmod(tmp, mode)
        os.replace(tmp, path)
    except BaseException:
        pathlib.Path(tmp).unlink(missing_ok=True)
        raise
