"""A mixture of Gaussians by its gradient, without expectation-maximisation: L-BFGS on the negative log-likelihood.

    p(x) = sum_k w_k N(x; m_k, diag(s_k^2)),    w = softmax(logits),  s = exp(log_s)
"""
import numpy as np

import revode as rv


def log_density(params, x):
    """(n, 2) points -> (n, K) log of each component's share of the density."""
    logits = params["logits"] - np.max(params["logits"])
    log_weights = logits - np.log(np.sum(np.exp(logits)))
    z = (x[:, None, :] - params["means"]) / np.exp(params["log_s"])
    return log_weights - np.sum(0.5 * z ** 2 + params["log_s"], axis=-1) - np.log(2 * np.pi)


def loss(params, x):
    """The mean negative log-likelihood, by a sum of exponentials that does not overflow."""
    shares = log_density(params, x)
    top = np.max(shares, axis=1, keepdims=True)
    return -np.mean(top[:, 0] + np.log(np.sum(np.exp(shares - top), axis=1)))


def problem(seed=0):
    """Three clouds of 60, 100 and 140 points, and a start that knows nothing of them."""
    rng = np.random.default_rng(seed)
    centres, widths = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]]), np.array([[0.5, 0.9], [0.8, 0.4], [0.3, 0.5]])
    x = np.concatenate([c + w * rng.normal(size=(n, 2)) for c, w, n in zip(centres, widths, (60, 100, 140), strict=True)])
    params = {"logits": np.zeros(3), "means": rng.normal(size=(3, 2)), "log_s": np.zeros((3, 2))}
    return params, x, centres


def main():
    params, x, centres = problem()
    found, result = rv.optim.lbfgs(rv.value_and_grad(lambda p: loss(p, x)), params, iterations=200)
    order = np.argmin(np.linalg.norm(found["means"][None] - centres[:, None], axis=-1), axis=1)
    weights = np.exp(found["logits"]) / np.sum(np.exp(found["logits"]))
    print(f"{result.nit} iterations, loss {loss(params, x):.3f} -> {result.fun:.3f}")
    print("means", found["means"][order].round(2).tolist(), "weights", weights[order].round(2).tolist())
    return {"means": found["means"][order], "centres": centres, "weights": weights[order]}


if __name__ == "__main__":
    main()
