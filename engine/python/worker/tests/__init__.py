"""Tests of the worker's Python code; they need the standard library, and say what else they skip."""
