"""Tells, as JSON, what the interpreter that runs this is. It imports nothing that is not its own."""
import glob
import importlib.util
import json
import os
import platform
import sys
import sysconfig


def has(name):
    """Tells whether a module is there, without running it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def pip_version():
    """Reads the version of pip from its metadata; empty without pip, or before Python 3.8."""
    try:
        from importlib.metadata import version
        return version("pip") if has("pip") else ""
    except Exception:
        return ""


def setuptools_wheel():
    """Finds the wheel of setuptools that new environments of this Python get."""
    folders = [sysconfig.get_config_var("WHEEL_PKG_DIR")]
    if sys.version_info < (3, 12) and has("ensurepip"):
        origin = importlib.util.find_spec("ensurepip").origin
        folders.append(os.path.join(os.path.dirname(origin), "_bundled"))
        for folder in filter(None, folders):
            found = sorted(glob.glob(os.path.join(folder, "setuptools-*.whl")))
            if found:
                return found[-1]
    return ""


json.dump({
    "path": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    "virtual": sys.prefix != sys.base_prefix,
    "version": platform.python_version(),
    "implementation": sys.implementation.name,
    "platform": sysconfig.get_platform(),
    "abi": sysconfig.get_config_var("SOABI") or "",
    "libc": "-".join(platform.libc_ver()),
    "prefix": sys.base_prefix,
    "venv": has("venv"),
    "ensurepip": has("ensurepip"),
    "virtualenv": has("virtualenv"),
    "pip": pip_version(),
    "setuptools": setuptools_wheel(),
}, sys.stdout)
