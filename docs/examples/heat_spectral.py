"""The heat equation by Fourier transforms: how fast it conducts, and where it is heated, from a few measurements.

    u_t = kappa u_xx + s(x),   u_xx = irfft(-k^2 rfft(u)),   s = a bump of height and place to be found, periodic in x
"""
import numpy as np

import revode as rv

N = 32
GRID, K = 2 * np.pi * np.arange(N) / N, np.arange(N // 2 + 1)


def source(params):
    return params["height"] * np.exp(4 * (np.cos(GRID - params["place"]) - 1))


def field(t, u, params):
    return np.exp(params["log_kappa"]) * np.fft.irfft(-K ** 2 * np.fft.rfft(u), N) + source(params)


TS, SEEN, PROBES = np.linspace(0.0, 1.0, 201), [50, 100, 200], slice(None, None, 4)
U0 = np.cos(GRID) + 0.5 * np.sin(3 * GRID)


def measured(params):
    """(times, probes) temperatures."""
    return rv.solve(field, U0, TS, params, save=SEEN).ys[:, PROBES]


def loss(params, data):
    return np.mean((measured(params) - data) ** 2)


TRUTH = {"log_kappa": np.array(-1.5), "height": np.array(1.2), "place": np.array(2.0)}


def problem(seed=4):
    """Measurements with errors of .01, and a first guess."""
    data = measured(TRUTH) + 0.01 * np.random.default_rng(seed).normal(size=(3, N // 4))
    return {"log_kappa": np.array(-0.5), "height": np.array(0.5), "place": np.array(3.0)}, data


def main():
    params, data = problem()
    found, result = rv.optim.lbfgs(rv.value_and_grad(lambda p: loss(p, data)), params, iterations=60)
    print(f"{result.nit} iterations, loss {loss(params, data):.1e} -> {result.fun:.1e}; " + ", ".join(
        f"{name} {float(found[name]):.2f} (true: {float(TRUTH[name]):.2f})" for name in TRUTH))
    return {name: (float(found[name]), float(TRUTH[name])) for name in TRUTH}


if __name__ == "__main__":
    main()
