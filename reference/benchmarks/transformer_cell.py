"""A transformer cell iterated by RevDEQ: Reversible on the tape of revode beside PyTorch's autograd
through all of it.

    OPENBLAS_NUM_THREADS=1 python -m reference.benchmarks.transformer_cell [--rounds 7]

    cell   LN(MLP(LN(SA(z + x)))),    d = 128, 4 heads, T = 128, batch 16, float32, one core
           4 iterations, which are 8 evaluations of the cell

First values and gradients are compared; then both take turns. Time: processor time of loss and
gradient, the least of all rounds. Memory held for the way back, each array once, parameters left
out: of revode the most that its tapes and two states hold at one time, of PyTorch what its autograd
saves. Beside it the peak of all that revode allocates (tracemalloc), which for PyTorch nobody
counts on a CPU. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import math
import time
import tracemalloc
import warnings
from typing import Any

import numpy as np

import revode as rv

D, HEADS, T, BATCH, ITERATIONS, BETA = 128, 4, 128, 16, 4, 0.5


def problem() -> tuple[dict, np.ndarray, np.ndarray]:
    """(params, x, weights of the loss), float32."""
    rng = np.random.default_rng(0)
    params = rv.nn.block_init(rng, D)
    x, weights = rng.standard_normal((2, BATCH, T, D)).astype(np.float32)
    return params, x, weights


def of_revode(gradient: Any = None) -> Any:
    params, x, weights = problem()
    z0 = np.zeros_like(x)

    def loss(params: Any, x: Any) -> Any:
        found = rv.fixed_point(
            lambda z, p, x: rv.nn.bare_block(p, z + x, HEADS),
            z0,
            params,
            x,
            method=rv.RevDEQ(BETA),
            tol=None,
            max_steps=ITERATIONS,
            gradient=gradient or rv.Reversible(),
            backend="eager",
        )
        return np.sum(found.z * weights)

    both = rv.value_and_grad(loss, (0, 1))
    return lambda: both(params, x)


def of_torch(fused: bool) -> Any:
    """fused: PyTorch's own attention kernel; else products and a softmax."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    params, x, weights = problem()
    p = {name: torch.tensor(a, requires_grad=True) for name, a in params.items()}
    x, weights = torch.tensor(x, requires_grad=True), torch.tensor(weights)
    mask = torch.full((T, T), -math.inf).triu(1)

    def attention(u: Any) -> Any:
        q, k, v = (
            (u @ p[name]).view(BATCH, T, HEADS, D // HEADS).transpose(1, 2) for name in "qkv"
        )
        if fused:
            taken = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            taken = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(D // HEADS) + mask, -1) @ v
        return taken.transpose(1, 2).reshape(BATCH, T, D) @ p["o"]

    def cell(z: Any) -> Any:
        u = F.layer_norm(attention(z + x), (D,), p["scale1"], p["shift1"])
        h = F.gelu(u @ p["W1"] + p["b1"], approximate="tanh") @ p["W2"] + p["b2"]
        return F.layer_norm(h, (D,), p["scale2"], p["shift2"])

    def run() -> tuple:
        y = z = torch.zeros(BATCH, T, D)
        for _ in range(ITERATIONS):
            y = (1 - BETA) * y + BETA * cell(z)
            z = (1 - BETA) * z + BETA * cell(y)
        value = (z * weights).sum()
        found = torch.autograd.grad(value, [*p.values(), x])
        return value.item(), (
            {name: g.numpy() for name, g in zip(p, found, strict=False)},
            found[-1].numpy(),
        )

    run.leaves = [*p.values(), x]  # type: ignore[attr-defined]
    return run


def saved_by_torch(run: Any) -> int:
    """Bytes that its autograd holds for the way back."""
    import torch

    own = {a.untyped_storage().data_ptr() for a in run.leaves}
    held: dict[int, Any] = {}

    def pack(a: Any) -> Any:
        if a.untyped_storage().data_ptr() not in own:
            held[a.untyped_storage().data_ptr()] = (
                a.untyped_storage()
            )  # kept, so that no address comes twice
        return a

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda a: a):
        run()
    return sum(s.nbytes() for s in held.values())


def held_by_revode(run: Any) -> int:
    """Bytes that its tapes hold, at their most, and two states."""
    from revode.engine.tensor import Tape
    from revode.memory import owners

    params, x, _ = problem()
    shapes, most, pull = {a.shape for a in params.values()}, 0, Tape.pull

    def measured(tape: Any, *rest: Any) -> Any:
        nonlocal most
        arrays = {id(a): a for a in owners(tape.nodes) if a.shape not in shapes}
        most = max(most, sum(a.nbytes for a in arrays.values()))
        return pull(tape, *rest)

    Tape.pull = measured  # type: ignore[method-assign]
    try:
        run()
    finally:
        Tape.pull = pull  # type: ignore[method-assign]
    return most + 2 * x.nbytes


def peak_of(run: Any) -> int:
    run()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def apart(a: Any, b: Any) -> float:
    pairs = zip(rv.tree.flatten(a)[0], rv.tree.flatten(b)[0], strict=True)
    return max(float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore", rv.ReconstructionWarning)
    runs = {
        "revode, Reversible": of_revode(),
        "revode, Direct": of_revode(rv.Direct()),
        "PyTorch": of_torch(False),
        "PyTorch, its attention": of_torch(True),
    }
    truth = runs["PyTorch"]()
    for name, run in runs.items():
        value, gradient = run()
        print(
            f"{name:24} value off by {abs(value - truth[0]) / abs(truth[0]):.0e}, gradient by "
            f"{apart(gradient, truth[1]):.0e}"
        )
    seconds = dict.fromkeys(runs, math.inf)
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name] = min(seconds[name], time.process_time() - start)
    memory = {
        name: saved_by_torch(run) if "PyTorch" in name else held_by_revode(run)
        for name, run in runs.items()
    }
    for name, run in runs.items():
        peak = "" if "PyTorch" in name else f", peak {peak_of(run) / 2**20:.0f} MiB"
        print(
            f"{name:24}{1e3 * seconds[name]:6.0f} ms ({seconds[name] / seconds['PyTorch']:.2f}), "
            f"held {memory[name] / 2**20:4.0f} MiB ({memory[name] / memory['PyTorch']:.2f}){peak}"
        )


if __name__ == "__main__":
    main()
