"""A latent variable model with Gaussian processes: five signals of one hidden number each, which nobody has seen.

    Y[:, d] ~ N(0, K(z, z) + s^2 I),   z (n,) to be found, with a standard normal prior (Lawrence 2004)
"""
import numpy as np

import revode as rv


def loss(params, Y):
    """-log p(Y | z) p(z), for each row."""
    z, n, D = params["z"], Y.shape[0], Y.shape[1]
    gap = (z[:, None] - z[None, :]) / np.exp(params["log_length"])
    K = np.exp(2 * params["log_amplitude"] - 0.5 * gap ** 2) + (np.exp(2 * params["log_noise"]) + 1e-6) * np.eye(n)
    fit = 0.5 * np.sum(Y * np.linalg.solve(K, Y)) + 0.5 * D * np.linalg.slogdet(K)[1]
    return (fit + 0.5 * np.sum(z ** 2)) / n


def problem(seed=2, n=30):
    """Signals of a hidden number, and a start from their first principal component."""
    rng = np.random.default_rng(seed)
    hidden = rng.uniform(-1.5, 1.5, n)
    Y = np.stack([np.sin(hidden), np.cos(2 * hidden), hidden ** 2 - 1, np.tanh(3 * hidden), np.sin(2 * hidden)], -1)
    Y = Y + 0.05 * rng.normal(size=Y.shape)
    U = np.linalg.svd(Y - Y.mean(0), full_matrices=False)[0]
    start = U[:, 0] / U[:, 0].std()
    return {"z": start, "log_length": np.array(0.0), "log_amplitude": np.array(0.0), "log_noise": np.array(-1.0)}, Y, hidden


def main():
    params, Y, hidden = problem()
    found, result = rv.optim.lbfgs(rv.value_and_grad(lambda p: loss(p, Y)), params, iterations=200)

    def agreement(z):
        """How well the order of z is that of the hidden numbers: 1 or -1 for the same, or the reverse."""
        ranks = [np.argsort(np.argsort(v)) for v in (z, hidden)]
        return abs(float(np.corrcoef(*ranks)[0, 1]))
    print(f"{result.nit} iterations, loss {loss(params, Y):.2f} -> {result.fun:.2f}; order of the hidden numbers "
          f"{agreement(params['z']):.3f} -> {agreement(found['z']):.3f}")
    return {"before": agreement(params["z"]), "after": agreement(found["z"])}


if __name__ == "__main__":
    main()
