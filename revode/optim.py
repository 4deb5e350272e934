"""Optimisers as pairs of pure functions on trees: state = init(params); params, state = update(params, grads, state).

    sgd      m <- mu m + g;                                   p <- p - lr m
    adam     m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
             p <- p - lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)
    adamw    the same, and  p <- p - lr weight_decay p        (of the p before the step)

Nothing is changed in place. Where the gradient is None (integers, bools, None and strings among the parameters) the
parameter passes through and the state holds None. The state is a tree of arrays, so rv.save keeps it.
Sources: Polyak 1964; Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .engine import tree
from .engine.tensor import beside, is_float, number, to_host

Rate = float | Callable[[int], float]


class Optimiser(NamedTuple):
    """init(params) -> state;  update(params, grads, state) -> (params, state)."""
    init: Callable
    update: Callable


def sgd(lr: Rate, momentum: float = 0.0) -> Optimiser:
    """Gradient descent, with heavy-ball momentum. lr: a number, or a function of the step (0, 1, ...)."""
    if not 0 <= momentum < 1:
        raise ValueError(f"sgd: momentum={momentum!r}; a number in [0, 1)")
    _check_rate("sgd", lr)

    def init(params: Any) -> dict:
        return {"step": np.asarray(0), "m": _zeros(params)}

    def update(params: Any, grads: Any, state: dict) -> tuple[Any, dict]:
        n = int(number(state["step"]))
        m = _each(lambda g, m: momentum * m + g, grads, state["m"])
        params = _each(lambda m, p: p - _at(lr, n) * m, m, params, keep=1)
        return params, {"step": np.asarray(n + 1), "m": m}

    return Optimiser(init, update)


def adam(lr: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimiser:
    """Adam (Kingma & Ba 2015). lr: a number, or a function of the step (0, 1, ...)."""
    return adamw(lr, 0.0, b1, b2, eps)


def adamw(lr: Rate, weight_decay: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimiser:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    lr multiplies the decay as well: in the paper's symbols eta = lr, alpha = 1 and lambda = weight_decay, which is also
    what optax and PyTorch call AdamW. All parameters decay, biases included.
    """
    for name, b in (("b1", b1), ("b2", b2)):
        if not 0 <= b < 1:
            raise ValueError(f"adam: {name}={b!r}; a number in [0, 1)")
    if not (eps > 0 and weight_decay >= 0):
        raise ValueError(f"adam: eps={eps!r}, weight_decay={weight_decay!r}; eps is positive and the decay not "
                         "negative")
    _check_rate("adam", lr)

    def init(params: Any) -> dict:
        return {"step": np.asarray(0), "m": _zeros(params), "v": _zeros(params)}

    def update(params: Any, grads: Any, state: dict) -> tuple[Any, dict]:
        n = int(number(state["step"])) + 1
        rate = _at(lr, n - 1)
        # Python floats throughout, so that float32 parameters stay float32.
        c1, c2 = 1 - b1 ** n, 1 - b2 ** n
        m = _each(lambda g, m: b1 * m + (1 - b1) * g, grads, state["m"])
        v = _each(lambda g, v: b2 * v + (1 - b2) * g * g, grads, state["v"])
        params = _each(lambda m, v, p: p - rate * (m / c1 / (np.sqrt(v / c2) + eps) + weight_decay * p),
                       m, v, params, keep=2)
        return params, {"step": np.asarray(n), "m": m, "v": v}

    return Optimiser(init, update)


def lbfgs(value_and_grad: Callable, params: Any, iterations: int = 100, **options: Any) -> tuple[Any, Any]:
    """Minimise with SciPy's L-BFGS-B over all float leaves of params, laid end to end.

    Parameters
    ----------
    value_and_grad : params -> (loss, gradients), such as rv.value_and_grad(loss).
    iterations : at most so many; each takes one evaluation or a few (its line search).
    options : passed on to scipy.optimize.minimize as its options, such as ftol, gtol, maxcor.

    Returns the parameters found, and SciPy's result (its message, nit, nfev, fun).
    Raises ImportError without SciPy; TypeError where params hold no floats.
    Source: Byrd, Lu, Nocedal & Zhu 1995.
    """
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError("optim.lbfgs runs SciPy's minimiser; install it with `pip install scipy`") from error
    leaves, structure = tree.flatten(params)
    floats = [i for i, x in enumerate(leaves) if is_float(x)]
    if not floats:
        raise TypeError(f"lbfgs: params are {tree.describe(params)}, which holds no float array to optimise")
    start, unravel = tree.ravel([to_host(leaves[i]) for i in floats])

    def rebuilt(x: Any) -> Any:
        full = list(leaves)
        for i, leaf in zip(floats, unravel(x), strict=True):
            full[i] = beside(leaves[i])(leaf.astype(getattr(leaves[i], "dtype", np.float64)))
        return tree.unflatten(structure, full)

    def objective(x: Any) -> tuple[float, Any]:
        value, grads = value_and_grad(rebuilt(x))
        return number(value), tree.ravel([to_host(tree.flatten(grads)[0][i]) for i in floats])[0].astype(np.float64)

    result = minimize(objective, start.astype(np.float64), method="L-BFGS-B", jac=True,
                      options={"maxiter": iterations, **options})
    return rebuilt(result.x), result


def _zeros(params: Any) -> Any:
    return tree.map(lambda x: np.zeros_like(x) if is_float(x) else None, params)


def _each(fn: Callable, first: Any, *others: Any, keep: int | None = None) -> Any:
    """fn on the leaves of several trees. Where the first is None: None, or the leaf number `keep` as it is."""
    def leaf(*row: Any) -> Any:
        if row[0] is None:
            return None if keep is None else row[keep]
        return fn(*row)

    return tree.map(leaf, first, *others)


def _at(lr: Rate, step: int) -> float:
    return float(lr(step)) if callable(lr) else lr


def _check_rate(name: str, lr: Rate) -> None:
    if not callable(lr) and not lr > 0:
        raise ValueError(f"{name}: lr={lr!r}; a positive number, or a function of the step")
