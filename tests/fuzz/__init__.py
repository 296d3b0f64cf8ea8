"""A fuzzer of bad input: damaged run folders, command lines, and values that only fail later. ``make test-fuzz``.

Each case is one call in this process. It passes if the call succeeds, or refuses in one line before it has written
anything; a traceback, several lines, a hang or a demand for all memory is a fault.
"""
