"""Programs of torch.export."""

from __future__ import annotations

import os
from typing import Any, Dict, List

import numpy as np
import torch

from . import Case

ROWS = np.random.RandomState(3).rand(6, 4).astype(np.float32)


class Network(torch.nn.Module):
    """Two inputs, one by keyword, and outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.words = torch.nn.Embedding(10, 3)

    def forward(self, x: torch.Tensor, words: torch.Tensor) -> Dict[str, torch.Tensor]:
        scores = self.layer(x) + self.words(words)
        return {"scores": scores, "best": scores.argmax(1)}


def cases() -> List[Case]:
    """All cases."""
    words = np.array([1, 2, 3, 4, 5, 9], dtype=np.int64)

    def train(folder: str) -> None:
        torch.manual_seed(1)
        rows = torch.export.Dim("rows", min=1, max=1024)
        program = torch.export.export(
            Network().eval(),
            (torch.from_numpy(ROWS),),
            {"words": torch.from_numpy(words)},
            dynamic_shapes={"x": {0: rows}, "words": {0: rows}},
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # has this machine's paths
        torch.export.save(program, os.path.join(folder, "model.pt2"))

    def reference(folder: str, values: Dict[str, Any]) -> Dict[str, Any]:
        module = torch.export.load(os.path.join(folder, "model.pt2")).module()
        with torch.no_grad():
            given = module(torch.from_numpy(values["x"]), words=torch.from_numpy(values["words"]))
        return {n: v.numpy() for n, v in given.items()}

    return [
        Case(
            "torchexport-network",
            "torchexport",
            "model.pt2",
            {"x": ROWS, "words": words},
            train,
            reference,
        )
    ]
