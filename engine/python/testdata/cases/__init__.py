"""Models that are trained for tests, by the frameworks themselves: one module for each group of
packages.

Each case says how its files are made, what is asked of the model, and what the framework itself
answers.
"""

from __future__ import annotations

import importlib
from typing import Any, Callable, Dict, List, NamedTuple

GROUPS = ("sklearn", "boosters", "mlflow", "tensorflow", "torchscript", "torchexport")


class Case(NamedTuple):
    """train writes the model into a folder, and reference asks the framework without Zarpa."""

    name: str
    format: str
    # the model's file in the folder; empty where the folder is the model
    file: str
    inputs: Dict[str, Any]
    train: Callable[[str], None]
    reference: Callable[[str, Dict[str, Any]], Dict[str, Any]]


def of(group: str) -> List[Case]:
    """The cases of a group, whose packages must be installed."""
    return importlib.import_module("." + group + "_cases", __name__).cases()
