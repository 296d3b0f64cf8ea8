"""Data sets: loaded, split, and served in batches from uint8 tensors in memory."""
