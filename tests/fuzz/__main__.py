"""All cases, or a part of them: ``python -m tests.fuzz seed=0 cases=1000 kind=folder``; exit code 1 with a fault."""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import tests  # noqa: F401  (before src, whose functions its type checker decorates)
from tests.fuzz.drawn import draw, faults_of


def main() -> None:
    """Run the cases that the command line asks for, and print the faults and how many cases of each kind there were."""
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        count, seed = int(options.get("cases", 1500)), int(options.get("seed", 0))
        cases = draw(Path(folder), seed, count, options.get("kind", ""))
        counts, faults = Counter[str](), Counter[str]()
        for case, words in faults_of(cases, Path(folder)):
            kind = case.kind.partition(":")[0]
            counts[kind] += 1
            if words:
                faults[kind] += 1
                print(f"{case.kind} {case.words[:100]}: {words}", flush=True)
    for kind, count in counts.items():
        print(f"{kind}: {count} cases, {faults[kind]} faults")
    print(f"{counts.total()} cases, {faults.total()} faults")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
