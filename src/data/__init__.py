"""Find and load a set, split it, and hand it out in batches that live in memory as uint8."""
