#!/usr/bin/env python3
"""Puts ONNX Runtime's native library into a folder: onnxruntime.py FOLDER [ARCH]

It comes out of the pinned wheel (see wheels.py). ARCH is amd64 or arm64, this machine's if left out.
"""

import pathlib
import sys

import wheels


def run():
    if not 2 <= len(sys.argv) <= 3:
        print(__doc__, file=sys.stderr)
        return 2
    arch = sys.argv[2] if len(sys.argv) == 3 else wheels.here()
    if arch not in wheels.MACHINES:
        raise wheels.Failed(f"{arch} is not known: amd64 or arm64")
    name = f"libonnxruntime.so.{wheels.version('onnxruntime', arch)}"
    wheels.take(wheels.fetch("onnxruntime", arch), f"onnxruntime/capi/{name}", pathlib.Path(sys.argv[1], name), 0o755)
    return 0


wheels.main(run)
