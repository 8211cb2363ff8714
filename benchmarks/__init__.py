"""Benchmarks, side by side, and the one place where figures are kept and rendered."""
