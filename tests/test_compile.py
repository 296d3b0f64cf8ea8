"""Every pool under torch.compile: one graph, the same numbers and gradients as without.

In a process of its own, as the shape checks that the tests put around every function are no code for a compiler.
"""

import json
import subprocess
import sys

import pytest

from src.pooling import POOLS
from tests.helpers import ROOT

NAMES = [name for name, pool in POOLS.items() if pool]

SCRIPT = """
import json
import torch
from src.pooling import POOLS

def results(run, pool, x):
    torch.manual_seed(0)
    leaf = x.clone().requires_grad_()
    y = run(leaf)
    inputs = [leaf, *pool.parameters()]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), inputs, allow_unused=True, materialize_grads=True)]

torch.set_num_threads(1)
found = {}
for name, pool in POOLS.items():
    for training in [True] * bool(pool) + [False] * (name in ("stochastic", "lps", "fractional")):  # those that draw
        torch.compiler.reset()
        torch.manual_seed(0)
        made = pool(channels=4).double().train(training)
        x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
        try:
            compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(results(compiled, made, x), results(made, made, x))
            found[f"{name} {training}"] = "same"
        except Exception as error:
            found[f"{name} {training}"] = repr(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """Pool and mode (training or not) → what came of compiling it; warnings are errors there too."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "name", [*(f"{name} True" for name in NAMES), "stochastic False", "lps False", "fractional False"]
)
def test_compiled_in_one_graph_a_pool_gives_the_same_numbers_and_gradients(found, name):
    assert found[name] == "same"
