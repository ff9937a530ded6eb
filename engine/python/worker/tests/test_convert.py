"""What counts as the same answer after a conversion."""

from __future__ import annotations

import unittest
from typing import Any, List, Tuple

from zarpa_worker import convert
from zarpa_worker.errors import InvalidInput

from .apart import needs

NAN, INF = float("nan"), float("inf")
Outputs = List[Tuple[str, Any]]


@needs("numpy")
class Compared(unittest.TestCase):
    def refused(self, before: Outputs, after: Outputs) -> str:
        with self.assertRaises(InvalidInput) as caught:
            convert.compare(before, after)
        return caught.exception.message

    def test_each_output_finds_its_own(self) -> None:
        before = [("predict", ["a", "b"]), ("predict_proba", [[0.75, 0.25], [0.5, 0.5]])]
        after = [("more", [[9.0], [9.0]]), ("p", [[0.75, 0.25], [0.5, 0.5 + 1e-4]]), ("label", ["a", "b"])]
        self.assertAlmostEqual(convert.compare(before, after), 1e-4)
        self.assertEqual(convert.compare([("a", [1.0, 2.0]), ("b", [3.0, 4.0])], [("x", [3.0, 4.0]), ("y", [[1.0], [2.0]])]), 0)
        self.assertEqual(convert.compare([("p", [0.25, 0.5])], [("l", [0, 1]), ("p", [[0.75, 0.25], [0.5, 0.5]])]), 0)
        self.assertEqual(convert.compare([("label", [0.0, 1.0])], [("label", [0, 1])]), 0)

    def test_an_output_without_counterpart_is_refused(self) -> None:
        self.assertIn("predict_proba", self.refused([("predict", [0, 1]), ("predict_proba", [[0.5, 0.5]] * 2)], [("l", [0, 1])]))
        self.assertIn("b", self.refused([("a", [1.0, 2.0]), ("b", [1.0, 2.0])], [("x", [1.0, 2.0])]))

    def test_missing_and_infinite_numbers_are_like_themselves_alone(self) -> None:
        self.assertEqual(convert.compare([("a", [1.0, NAN, INF])], [("x", [1.0, NAN, INF])]), 0)
        for want, got in ((1.0, NAN), (NAN, 1.0), (INF, 1.0), (1.0, INF), (INF, -INF), (1.0, 1.01)):
            self.refused([("a", [0.0, want])], [("x", [0.0, got])])

    def test_some_rows_have_missing_values(self) -> None:
        import numpy

        rows = convert.sample(1000, 4)
        missing = numpy.isnan(convert.gaps(rows))
        self.assertFalse(numpy.isnan(rows).any())
        self.assertTrue(100 < missing.any(axis=1).sum() < 400)
        self.assertEqual(convert.gaps(rows).dtype, numpy.float32)
