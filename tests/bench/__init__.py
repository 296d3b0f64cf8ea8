"""Benchmarks: A and B by turns, and the ratio of their medians; an absolute time says little on another machine."""
