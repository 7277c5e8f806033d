"""Benchmarks: what the backbone carries on this machine, measured from process to process."""
