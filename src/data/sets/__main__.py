"""Get Fashion-MNIST: ``python -m src.data.sets FOLDER``."""

import sys

from . import DataError, load

try:
    source = load("fashion_mnist", sys.argv[1], 0)
except DataError as error:
    print(error, file=sys.stderr)
    raise SystemExit(2) from None
print(f"Fashion-MNIST: {len(source.train)} + {len(source.test)} images in {sys.argv[1]}/")
