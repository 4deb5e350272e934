"""A long short-term memory, from its equations, that adds two numbers which it saw long apart.

    (i, f, o, u) = (x, h) W + b,   c <- sigmoid(f) c + sigmoid(i) tanh(u),   h <- sigmoid(o) tanh(c)

Source: Hochreiter & Schmidhuber 1997, with the forgetting of Gers, Schmidhuber & Cummins 2000.
"""
import itertools

import numpy as np

import revode as rv
from revode.optim import adam, clip_by_global_norm, cosine, minibatches, warmup

HIDDEN, LENGTH = 16, 12


def sigmoid(x):
    return 0.5 * (np.tanh(0.5 * x) + 1.0)


def output(params, x):
    """(batch, time, 2) -> (batch,): what the network says at the end."""
    h = c = np.zeros((x.shape[0], HIDDEN))
    for t in range(x.shape[1]):
        gates = np.concatenate([x[:, t], h], axis=1) @ params["W"] + params["b"]
        i, f, o, u = (gates[:, k * HIDDEN:(k + 1) * HIDDEN] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(u)
        h = sigmoid(o) * np.tanh(c)
    return h @ params["out"]


def loss(params, x, y):
    return np.mean((output(params, x) - y) ** 2)


def problem(seed=3, n=512):
    """A row of numbers in [0, 1], two of them marked; the target is their sum, less its mean."""
    rng = np.random.default_rng(seed)
    values, marks = rng.uniform(size=(n, LENGTH)), np.zeros((n, LENGTH))
    first, second = rng.integers(0, LENGTH // 2, n), rng.integers(LENGTH // 2, LENGTH, n)
    marks[np.arange(n), first] = marks[np.arange(n), second] = 1.0
    data = {"x": np.stack([values, marks], -1), "y": np.sum(values * marks, axis=1) - 1.0}
    params = {"W": rng.normal(size=(2 + HIDDEN, 4 * HIDDEN)) / (2 + HIDDEN) ** 0.5, "b": np.zeros(4 * HIDDEN),
              "out": rng.normal(size=HIDDEN) / HIDDEN ** 0.5}
    params["b"][HIDDEN:2 * HIDDEN] = 1.0                                   # remember, to begin with
    return params, data, rng


def main(iterations=250):
    params, data, rng = problem()
    optimiser = adam(warmup(cosine(2e-2, iterations - 20), 20))
    state, start = optimiser.init(params), loss(params, data["x"], data["y"])
    for batch in itertools.islice(minibatches(rng, data, 64), iterations):
        grads = rv.grad(loss)(params, batch["x"], batch["y"])
        params, state = optimiser.update(params, clip_by_global_norm(grads, 1.0), state)
    end = loss(params, data["x"], data["y"])
    guess = float(np.mean(data["y"] ** 2))
    print(f"{iterations} steps: mean squared error {start:.3f} -> {end:.4f} (always saying the mean: {guess:.3f})")
    return {"error": float(end), "guess": guess}


if __name__ == "__main__":
    main()
