"""TorchScript, scripted and traced."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Tuple

import numpy as np
import torch

from . import Case

ROWS = np.random.RandomState(3).rand(6, 4).astype(np.float32)


class Network(torch.nn.Module):
    """One input and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        scores = torch.softmax(self.layer(x), 1)
        return scores, scores.argmax(1)


class Words(torch.nn.Module):
    """Whole numbers that choose from an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(10, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.words(words).sum(1)


def with_script(name: str, module: Any, inputs: Dict[str, Any]) -> Case:
    """A module in a file."""

    def train(folder: str) -> None:
        module.save(os.path.join(folder, "model.pt"))

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        loaded = torch.jit.load(os.path.join(folder, "model.pt")).eval()
        with torch.no_grad():
            given = loaded(*[torch.from_numpy(v) for v in values.values()])
        if isinstance(given, tuple):
            return {"output_%d" % i: g.numpy() for i, g in enumerate(given)}
        return {"output": given.numpy()}

    return Case(name, "torchscript", "model.pt", inputs, train, reference)


def cases() -> List[Case]:
    """All cases."""
    torch.manual_seed(1)
    words = np.array([[1, 2], [3, 9]], dtype=np.int64)
    traced = torch.jit.trace(
        torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()), torch.from_numpy(ROWS)
    )
    return [
        with_script("torchscript-network", torch.jit.script(Network()), {"x": ROWS}),
        with_script("torchscript-words", torch.jit.script(Words()), {"words": words}),
        with_script("torchscript-traced", traced, {"input": ROWS}),
    ]
