"""A cart with a pendulum: its equations are M(q) q'' = F(t, q, q'), and the masses are found from how it moves.

    [m_c + m_p          m_p l cos a]  [x'']     [m_p l a'^2 sin a + push(t)]
    [m_p l cos a        m_p l^2    ]  [a'']  =  [-m_p g l sin a            ]
"""
import numpy as np

import revode as rv

G = 9.81


def field(t, y, params):
    """y = (x, a, x', a')."""
    cart, bob, length = np.exp(params["log_cart"]), np.exp(params["log_bob"]), np.exp(params["log_length"])
    a, da = y[1], y[3]
    mixed = bob * length * np.cos(a)
    M = np.stack([np.stack([cart + bob, mixed]), np.stack([mixed, bob * length ** 2])])
    F = np.stack([bob * length * da ** 2 * np.sin(a) + 2 * np.cos(4 * t), -bob * G * length * np.sin(a)])
    return np.concatenate([y[2:], np.linalg.solve(M, F)])


Y0, TS, SEEN = np.array([0.0, 1.2, 0.0, 0.0]), np.linspace(0.0, 2.0, 201), np.arange(10, 201, 10)
TRUTH = {"log_cart": np.log(1.5), "log_bob": np.log(0.4), "log_length": np.log(0.7)}


def measured(params):
    """(times, 2): place of the cart, and angle."""
    return rv.solve(field, Y0, TS, params, save=SEEN).ys[:, :2]


def loss(params, data):
    return np.mean((measured(params) - data) ** 2)


def problem(seed=5):
    """Measurements with errors of .002, and a guess that takes everything to be 1."""
    data = measured(TRUTH) + 0.002 * np.random.default_rng(seed).normal(size=(len(SEEN), 2))
    return {"log_cart": 0.0, "log_bob": 0.0, "log_length": 0.0}, data


def main():
    params, data = problem()
    found, result = rv.optim.lbfgs(rv.value_and_grad(lambda p: loss(p, data)), params, iterations=60)
    print(f"{result.nit} iterations, loss {loss(params, data):.1e} -> {result.fun:.1e}; " + ", ".join(
        f"{name.removeprefix('log_')} {np.exp(float(found[name])):.2f} (true: {np.exp(TRUTH[name]):.2f})" for name in TRUTH))
    return {name: (float(found[name]), float(TRUTH[name])) for name in TRUTH}


if __name__ == "__main__":
    main()
