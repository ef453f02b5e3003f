"""Benchmarks of several configs over several seeds: planning, running, and one table of the results."""
