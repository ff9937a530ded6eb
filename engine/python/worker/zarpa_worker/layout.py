"""Where a script finds its models: AZUREML_MODEL_DIR, and the folders of Model.get_model_path."""

from __future__ import annotations

import os
from typing import Iterator, List, NamedTuple, Optional


class Models(NamedTuple):
    """The models of a deployment. root is the folder of NAME/VERSION/…, or the folder of one model
    that has no such place; directory is what AZUREML_MODEL_DIR says; registered tells which."""

    root: str
    directory: str
    registered: bool


def find(root: str) -> Models:
    """Recognise the layout: with one registered model AZUREML_MODEL_DIR is its own folder, with
    several the folder of all."""
    versions = _versions(root)
    if versions is None:
        return Models(root, root, False)
    return Models(root, versions[0] if len(versions) == 1 else root, True)


def _versions(root: str) -> Optional[List[str]]:
    """The folders NAME/VERSION; None where something else is among them."""
    found = []
    for name in sorted(_visible(root)):
        folder = os.path.join(root, name)
        numbers = _visible(folder) if os.path.isdir(folder) else []
        if not numbers:
            return None
        for number in numbers:
            if not number.isdigit() or not os.path.isdir(os.path.join(folder, number)):
                return None
            found.append(os.path.join(folder, number))
    return found or None


def _visible(folder: str) -> List[str]:
    return [name for name in os.listdir(folder) if not name.startswith(".")]


def model_path(models: Optional[Models], name: str, version: Optional[int]) -> Optional[str]:
    """What Model.get_model_path answers: the one file or folder of a version, the newest where none
    is given, or else what has that name in the working directory. None: there is no such model."""
    if models is not None and models.registered:
        folder = os.path.join(models.root, name)
        if os.path.isdir(folder):
            number = max(map(int, _visible(folder))) if version is None else version
            place = os.path.join(folder, str(number))
            if os.path.isdir(place):
                return _only(place)
    if os.path.exists(name):
        return name
    if models is not None and not models.registered:
        return _only(models.root)
    return None


def _only(place: str) -> str:
    """The one entry of a folder; the folder where there are several."""
    entries = _visible(place)
    return os.path.join(place, entries[0]) if len(entries) == 1 else place


def tree(folder: str, limit: int) -> List[str]:
    """The files below a folder, indented, for the log; at most limit lines, and a word on the rest."""
    lines: List[str] = []
    for line in _walk(folder, 0):
        if len(lines) == limit:
            lines.append("... only the first %d lines are shown" % limit)
            break
        lines.append(line)
    return lines


def _walk(path: str, depth: int) -> Iterator[str]:
    name = os.path.basename(os.path.normpath(path))
    if not os.path.isdir(path) or os.path.islink(path):
        yield "    " * depth + name
        return
    yield "    " * depth + name + "/"
    for child in sorted(os.listdir(path)):
        yield from _walk(os.path.join(path, child), depth + 1)
