"""Ours and the peers, same problems, same judge: `python -m benchmarks [NAME ...]`."""
