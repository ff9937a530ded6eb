"""Writes, as JSON to a file, the packages that are installed in an environment: its own only, not
those of the machine that it may see."""
import glob
import json
import os
import platform
import sys
from importlib import metadata

target, prefix = sys.argv[1:3]
own = os.path.realpath(prefix) + os.sep
folders = [p for p in sys.path if os.path.realpath(p).startswith(own)]
packages = []
for found in metadata.distributions(path=folders):
    name = found.metadata["Name"]
    if name and found.version:
        packages.append((name, found.version))
known = {name.lower().replace("_", "-") for name, _ in packages}
for path in glob.glob(os.path.join(prefix, "conda-meta", "*.json")):
    with open(path, encoding="utf-8") as file:
        entry = json.load(file)
    if entry["name"].lower().replace("_", "-") not in known:
        packages.append((entry["name"], entry["version"]))
with open(target, "w", encoding="utf-8") as file:
    json.dump({"python": platform.python_version(), "packages": packages}, file)
