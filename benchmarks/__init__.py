"""Measured claims: `python -m benchmarks NAME`."""
