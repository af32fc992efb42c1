"""Benchmarks: one file a question, ours and the peer in the same run, a table and JSON with machine and commit."""
