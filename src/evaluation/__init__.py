"""Measuring any net on a set of images: transforms, all shifts, layers, probes."""
