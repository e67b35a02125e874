"""Ours and the peers on the same problems, under the same judge: `python -m benchmarks [NAME ...]`."""
