"""Regression with a Gaussian process: the kernel's scales by the gradient of the marginal likelihood.

    y = f(x) + noise,  K = a^2 exp(-(x - x')^2 / 2 l^2) + s^2 I,    -log p(y) = y K^-1 y / 2 + log det K / 2 + const
"""
import numpy as np

import revode as rv


def kernel(params, a, b):
    """(n,), (m,) -> (n, m)."""
    scale = np.exp(params["log_length"])
    return np.exp(2 * params["log_amplitude"] - 0.5 * ((a[:, None] - b[None, :]) / scale) ** 2)


def loss(params, x, y):
    """The negative log of the marginal likelihood, for each observation."""
    K = kernel(params, x, x) + (np.exp(2 * params["log_noise"]) + 1e-8) * np.eye(len(x))
    return 0.5 * (y @ np.linalg.solve(K, y) + np.linalg.slogdet(K)[1] + len(x) * np.log(2 * np.pi)) / len(x)


def predict(params, x, y, at):
    """Mean and standard deviation of f at new places."""
    L = np.linalg.cholesky(kernel(params, x, x) + np.exp(2 * params["log_noise"]) * np.eye(len(x)))
    half = np.linalg.solve(L, kernel(params, x, at))
    mean = half.T @ np.linalg.solve(L, y)
    return mean, np.sqrt(np.exp(2 * params["log_amplitude"]) - np.sum(half ** 2, axis=0))


def problem(seed=1):
    """40 noisy observations of a sine that grows."""
    rng = np.random.default_rng(seed)
    x = np.sort(rng.uniform(-3.0, 3.0, 40))
    y = truth(x) + 0.1 * rng.normal(size=40)
    return {"log_length": np.array(0.7), "log_amplitude": np.array(0.0), "log_noise": np.array(-1.0)}, x, y


def truth(x):
    return np.sin(2 * x) * np.exp(0.2 * x)


def main():
    params, x, y = problem()
    found, result = rv.optim.lbfgs(rv.value_and_grad(lambda p: loss(p, x, y)), params, iterations=100)
    at = np.linspace(-2.5, 2.5, 41)
    mean, deviation = predict(found, x, y, at)
    worst = np.max(np.abs(mean - truth(at)) / deviation)
    print(f"{result.nit} iterations, loss {loss(params, x, y):.3f} -> {result.fun:.3f}; noise {np.exp(found['log_noise']):.3f} "
          f"(true: 0.1); the truth is within {worst:.1f} standard deviations")
    return {"noise": float(np.exp(found["log_noise"])), "worst": float(worst)}


if __name__ == "__main__":
    main()
