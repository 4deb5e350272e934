"""A user's program, for type checkers: no error in `right`, one in each line of `wrong` that ends in a mark."""
import numpy as np

import revode as rv
from revode import optim


def field(t, y, p):
    return -p["k"] * y


def right() -> float:
    sol = rv.solve(field, np.ones(3), np.linspace(0.0, 1.0, 11), {"k": 2.0}, method=rv.Coupled("rk4", lam=0.99),
                   gradient=rv.Reversible(resync=5), backend="native", arithmetic="strict", save=[-1])
    steps: int = sol.stats.steps
    peak: int = sol.stats.peak_states
    times: np.ndarray = sol.ts

    def loss(p: dict) -> float:
        return rv.solve(field, np.ones(3), times, p, method=rv.EES(stages=4)).y1[0]

    value, grads = rv.value_and_grad(loss)({"k": 2.0})
    optimiser: optim.Optimiser = optim.adam(1e-3)
    params, state = optimiser.update({"k": 2.0}, grads, optimiser.init({"k": 2.0}))
    for t, there in rv.steps(field, np.ones(3), times, params):
        steps += there.n + int(t)
    print(state)
    noise = rv.Brownian(seed=7)
    rv.solve(field, np.ones((2, 3)), times, params, diffusion=field, noise=noise, interpretation="ito")
    return steps + peak + value


def wrong() -> None:
    ts = np.linspace(0.0, 1.0, 11)
    rv.solve(field, np.ones(3), ts, backend="nativ")  # wrong
    rv.solve(field, np.ones(3), ts, arithmetic="exact")  # wrong
    rv.solve(field, np.ones(3), ts, gradient="reversible")  # wrong
    rv.solve(field, np.ones(3), ts, method="rk4")  # wrong
    rv.solve(field, np.ones(3), ts, interpretation="Ito")  # wrong
    rv.solve(field, np.ones(3), ts, rtol=1e-3)  # wrong
    rv.Coupled("rk4", lamda=0.9)  # wrong
    rv.Checkpointed()  # wrong
    print(rv.solve(field, np.ones(3), ts).y2)  # wrong
    rv.Brownian(seed="seven")  # wrong
