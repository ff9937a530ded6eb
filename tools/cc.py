#!/usr/bin/env python3
"""Prints a C compiler for cgo: cc.py [--release ARCH]

CC when it is set, else gcc, cc or clang when one of them makes a program, else zig from its
pinned wheel. With --release it is always zig, for the architecture that is named (amd64 or
arm64) and an old glibc, so that the result runs on most systems.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile

import wheels

# The oldest glibc that the binary and ONNX Runtime's library ask for.
GLIBC = "2.28"

# The parts of zig that make no programs for Linux with glibc, three quarters of its files.
UNUSED = tuple("ziglang/lib/" + p for p in (
    "docs/", "build-web/", "lldb/", "libc/darwin/", "libc/freebsd/", "libc/mingw/", "libc/netbsd/", "libc/openbsd/",
    "libc/wasi/", "libc/musl/"))
HEADERS = "ziglang/lib/libc/include/"
USED_HEADERS = ("any-linux-any/", "generic-glibc/", "x86-linux-", "x86_64-linux-", "aarch64-linux-")


def run():
    if len(sys.argv) == 3 and sys.argv[1] == "--release" and sys.argv[2] in wheels.MACHINES:
        print(zig(sys.argv[2]))
        return 0
    if len(sys.argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    print(system() or zig(wheels.here()))
    return 0


def system():
    """The compiler of this machine, or None."""
    wanted = os.environ.get("CC")
    if wanted:
        if not works(shlex.split(wanted)):
            raise wheels.Failed(f"CC={wanted} makes no program; unset CC to use another")
        return wanted
    for name in ("gcc", "cc", "clang"):  # gcc is what go itself takes
        if shutil.which(name) and works([name]):
            return name
    return None


def works(command):
    """Whether a compiler has headers, a linker and all else that cgo needs."""
    with tempfile.TemporaryDirectory() as tmp:
        source = pathlib.Path(tmp, "a.c")
        source.write_text("#include <stdlib.h>\n#include <pthread.h>\nint main(void) { return abs(0); }\n")
        try:
            return subprocess.run([*command, "-pthread", "-o", str(source.with_suffix("")), str(source)],
                                  capture_output=True, check=False).returncode == 0
        except OSError:
            return False


def zig(arch):
    """The path of a script that calls zig as a C compiler for Linux on an architecture."""
    host = wheels.here()
    home = wheels.CACHE / f"zig-{wheels.version('ziglang', host)}"
    if not (home / "zig").exists():
        if not os.environ.get("CC"):
            wheels.say("no C compiler here: zig does its work")
        unpack(wheels.fetch("ziglang", host), home)
    script = home / f"cc-{arch}"
    text = f"""#!/bin/sh
# Made by tools/cc.py.
export ZIG_GLOBAL_CACHE_DIR="${{0%/*}}/cache" ZIG_LOCAL_CACHE_DIR="${{0%/*}}/cache"
exec "${{0%/*}}/zig" cc -target {wheels.MACHINES[arch]}-linux-gnu.{GLIBC} "$@"
"""
    if not script.exists() or script.read_text() != text:
        new = script.with_suffix(f".{os.getpid()}")
        new.write_text(text)
        new.chmod(0o755)
        os.replace(new, script)
    return f'"{script}"' if " " in str(script) else script


def unpack(wheel, home):
    """Unpacks what is needed of zig, whole or not at all."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as tmp, zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            if not name.startswith("ziglang/") or name.startswith(UNUSED):
                continue
            if name.startswith(HEADERS) and not name[len(HEADERS):].startswith(USED_HEADERS):
                continue
            z.extract(name, tmp)
        os.chmod(pathlib.Path(tmp, "ziglang", "zig"), 0o755)
        try:
            os.rename(pathlib.Path(tmp, "ziglang"), home)
        except OSError:
            if not (home / "zig").exists():  # else another build was faster
                raise


wheels.main(run)
