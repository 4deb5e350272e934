"""Optimisers as pairs of pure functions on trees: state = init(params); params, state = update(params, grads, state).

    sgd      m <- mu m + g;                                   p <- p - lr m
    adam     m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2
             p <- p - lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)
    adamw    the same, and  p <- p - lr weight_decay p        (of the p before the step)

Nothing is changed in place. Where the gradient is None (integers, bools, None and strings among the parameters) the
parameter passes through and the state holds None. The state is a tree of arrays, so rv.save keeps it.
Beside them what a training loop needs: rates that change (`cosine`, `warmup`), `clip_by_global_norm`, and `minibatches`.
Sources: Polyak 1964; Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .engine import tree
from .engine.tensor import beside, is_float, number, to_host

Rate = float | Callable[[int], float]


class Optimiser(NamedTuple):
    """A pair of pure functions on trees; nothing is changed in place.

    Parameters
    ----------
    init : init(params) -> state, a tree of arrays that rv.save keeps.
    update : update(params, grads, state) -> (params, state).
    """
    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]


def sgd(lr: Rate, momentum: float = 0.0) -> Optimiser:
    """Gradient descent, with heavy-ball momentum.

        m <- mu m + g;     p <- p - lr m

    Parameters
    ----------
    lr : the rate, a number > 0, or a function of the step (0, 1, ...).
    momentum : mu in [0, 1).

    Returns an Optimiser. Raises ValueError for another rate or momentum.

    Cost: one array like the parameters.
    Source: Polyak 1964.

    Example
    -------
    >>> optimiser = sgd(0.1)
    >>> params, state = optimiser.update({"a": np.array(1.0)}, {"a": np.array(2.0)}, optimiser.init({"a": np.array(1.0)}))
    >>> float(params["a"])
    0.8
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"sgd: momentum={momentum!r}; a number in [0, 1)")
    _check_rate("sgd", lr)
    momentum = float(momentum)

    def init(params: Any) -> dict:
        return {"step": np.asarray(0), "m": _zeros(params)}

    def update(params: Any, grads: Any, state: dict) -> tuple[Any, dict]:
        n = _step("sgd", state, "m")
        m = _each(lambda g, m: momentum * m + g, grads, state["m"])
        params = _each(lambda m, p: p - _at(lr, n) * m, m, params, keep=1)
        return params, {"step": np.asarray(n + 1), "m": m}

    return Optimiser(init, update)


def adam(lr: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimiser:
    """Adam: a rate for each parameter, from running means of the gradient and of its square.

        m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2;     p <- p - lr (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + eps)

    Parameters
    ----------
    lr : the rate, a number > 0, or a function of the step (0, 1, ...).
    b1, b2 : of the running means, in [0, 1).
    eps : added to the root, > 0, in the unit of the gradient.

    Returns an Optimiser. Raises ValueError for other numbers.

    Cost: two arrays like the parameters.
    Source: Kingma & Ba 2015, algorithm 1.

    Example
    -------
    >>> optimiser = adam(0.1)
    >>> params, state = optimiser.update({"a": np.array(1.0)}, {"a": np.array(2.0)}, optimiser.init({"a": np.array(1.0)}))
    >>> round(float(params["a"]), 6)
    0.9
    """
    return adamw(lr, 0.0, b1, b2, eps)


def adamw(lr: Rate, weight_decay: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, mask: Any = None) -> Optimiser:
    """Adam with decoupled weight decay.

        as adam, and  p <- p - lr weight_decay p        (of the p before the step)

    lr multiplies the decay as well: in the paper's symbols eta = lr, alpha = 1 and lambda = weight_decay, which is also
    what optax and PyTorch call AdamW.

    Parameters
    ----------
    lr : the rate, a number > 0, or a function of the step (0, 1, ...).
    weight_decay : >= 0.
    b1, b2, eps : as for adam.
    mask : which parameters decay: a tree of bools like params, or a function of a leaf, such as `lambda x: np.ndim(x) > 1`
        for matrices and not biases. Default: all of them.

    Returns an Optimiser. Raises ValueError for other numbers.

    Cost: two arrays like the parameters.
    Source: Loshchilov & Hutter 2019, algorithm 2.

    Example
    -------
    >>> optimiser = adamw(0.1, weight_decay=0.5)
    >>> params, state = optimiser.update({"a": np.array(1.0)}, {"a": np.array(0.0)}, optimiser.init({"a": np.array(1.0)}))
    >>> round(float(params["a"]), 6)
    0.95
    """
    for name, b in (("b1", b1), ("b2", b2)):
        if not 0 <= b < 1:
            raise ValueError(f"adam: {name}={b!r}; a number in [0, 1)")
    if not (eps > 0 and weight_decay >= 0):
        raise ValueError(f"adam: eps={eps!r}, weight_decay={weight_decay!r}; eps is positive and the decay not "
                         "negative")
    _check_rate("adam", lr)
    b1, b2, eps, weight_decay = map(float, (b1, b2, eps, weight_decay))

    def decayed(params: Any) -> Any:
        """The decay of each leaf."""
        chosen = tree.map(lambda x: mask is None or bool(mask(x)), params) if mask is None or callable(mask) else mask
        return tree.map(lambda x, on: weight_decay if on else 0.0, params, chosen)

    def init(params: Any) -> dict:
        decayed(params)
        return {"step": np.asarray(0), "m": _zeros(params), "v": _zeros(params)}

    def update(params: Any, grads: Any, state: dict) -> tuple[Any, dict]:
        n = _step("adam", state, "m", "v") + 1
        rate = _at(lr, n - 1)
        c1, c2 = 1 - b1 ** n, 1 - b2 ** n
        m = _each(lambda g, m: b1 * m + (1 - b1) * g, grads, state["m"])
        v = _each(lambda g, v: b2 * v + (1 - b2) * g * g, grads, state["v"])
        params = _each(lambda m, v, p, decay: p - rate * (m / c1 / (np.sqrt(v / c2) + eps) + decay * p),
                       m, v, params, decayed(params), keep=2)
        return params, {"step": np.asarray(n), "m": m, "v": v}

    return Optimiser(init, update)


def cosine(lr: float, steps: int, final: float = 0.0) -> Callable[[int], float]:
    """A rate that falls from lr at step 0 to final at step `steps`, along half a cosine, and stays there.

    Parameters
    ----------
    lr, final : the rate at the start, > 0, and at the end, >= 0.
    steps : how long it takes.

    Returns a function of the step, for the lr of an optimiser. Raises ValueError for other numbers.

    Cost: none.
    Source: Loshchilov & Hutter 2017 (SGDR), equation 5, without restarts.

    Example
    -------
    >>> rate = cosine(0.1, 100)
    >>> [round(rate(n), 4) for n in (0, 50, 100, 200)]
    [0.1, 0.05, 0.0, 0.0]
    """
    if not (lr > 0 and final >= 0 and steps > 0):
        raise ValueError(f"cosine: lr={lr!r}, steps={steps!r}, final={final!r}; a positive rate, a positive number of steps, and a "
                         "final rate that is not negative")
    return lambda n: final + (lr - final) * (1 + math.cos(math.pi * min(n / steps, 1.0))) / 2


def warmup(lr: Rate, steps: int) -> Callable[[int], float]:
    """A rate that rises in equal parts to lr over the first `steps` steps (1/steps, 2/steps, ..., 1), and is lr after that.

    Parameters
    ----------
    lr : a number, or a schedule, which begins where the rise ends: warmup(cosine(1e-3, 900), 100) takes 1000 steps.
    steps : how long the rise takes.

    Returns a function of the step, for the lr of an optimiser. Raises ValueError for other numbers.

    Cost: none.
    Source: Goyal et al. 2017, section 2.2.

    Example
    -------
    >>> rate = warmup(0.1, 4)
    >>> [round(rate(n), 4) for n in range(6)]
    [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]
    """
    if steps < 0:
        raise ValueError(f"warmup: steps={steps!r}; how many steps the rate takes to rise, 0 or more")
    _check_rate("warmup", lr)
    return lambda n: _at(lr, 0) * (n + 1) / steps if n < steps else _at(lr, n - steps)


def global_norm(grads: Any) -> Any:
    """sqrt(sum of squares) over all float leaves of a tree; computed in float64.

    Parameters
    ----------
    grads : a tree of arrays.

    Returns a float64 number, 0 for a tree without floats. Raises nothing.

    Cost: one pass.

    Example
    -------
    >>> float(global_norm({"a": np.array([3.0]), "b": np.array([4.0])}))
    5.0
    """
    squares = [np.sum(np.square(np.asarray(x, float) if type(x) is float else x.astype(np.float64)))
               for x in tree.flatten(grads)[0] if is_float(x)]
    return np.sqrt(sum(squares[1:], squares[0])) if squares else np.float64(0.0)


def clip_by_global_norm(grads: Any, most: float) -> Any:
    """grads, scaled down to a global norm of `most` where theirs is larger; else with their own bits. NaN stays NaN.

    Parameters
    ----------
    grads : a tree of arrays.
    most : the largest norm that passes, > 0, in the unit of the gradient.

    Returns a tree like grads. Raises ValueError for another `most`.

    Cost: two passes.
    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.

    Example
    -------
    >>> clip_by_global_norm({"a": np.array([3.0]), "b": np.array([4.0])}, 1.0)
    {'a': array([0.6]), 'b': array([0.8])}
    """
    if not 0 < most < math.inf:
        raise ValueError(f"clip_by_global_norm: most={most!r}; a positive number, the largest norm that passes")
    factor = most / np.maximum(global_norm(grads), most)
    return tree.map(lambda g: g * factor.astype(getattr(g, "dtype", np.float64)) if is_float(g) else g, grads)


def minibatches(rng: np.random.Generator, data: Any, size: int, epochs: int | None = None) -> Iterator[Any]:
    """Rows of data, `size` at a time, in a new order in each epoch: trees like data, for a training loop.

    Parameters
    ----------
    rng : np.random.default_rng(seed); nothing else is drawn from it than one permutation an epoch.
    data : a tree of arrays with the same number of rows, their first axis; other leaves pass through.
    size : rows of a batch. The rest of an epoch, fewer than size, is left out, so that all batches have one shape.
    epochs : how many times through the data; endless by default.

    Yields trees like data, with `size` rows.
    Raises ValueError where rows differ in number or are fewer than size.

    Cost: one copy of the rows.

    Example
    -------
    >>> batches = minibatches(np.random.default_rng(0), {"x": np.arange(6), "y": 10 * np.arange(6)}, 3, epochs=1)
    >>> [(b["x"].tolist(), b["y"].tolist()) for b in batches]
    [([3, 2, 5], [30, 20, 50]), ([4, 0, 1], [40, 0, 10])]
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"minibatches: rng is a {type(rng).__name__}; pass a generator, np.random.default_rng(seed)")
    rows = {x.shape[0] for x in tree.flatten(data)[0] if np.ndim(x)}
    if len(rows) != 1 or not 1 <= size <= max(rows):
        raise ValueError(f"minibatches: data is {tree.describe(data)} and size is {size!r}; the arrays have the same number of rows, "
                         "and a batch takes at least 1 and at most all of them")
    n = rows.pop()

    def batches() -> Iterator[Any]:
        epoch = 0
        while epochs is None or epoch < epochs:
            order, epoch = rng.permutation(n), epoch + 1
            for first in range(0, n - size + 1, size):
                chosen = order[first:first + size]
                yield tree.map(lambda x, chosen=chosen: x[beside(x)(chosen)] if np.ndim(x) else x, data)

    return batches()


def lbfgs(value_and_grad: Callable, params: Any, iterations: int = 100, **options: Any) -> tuple[Any, Any]:
    """Minimise with SciPy's L-BFGS-B over all float leaves of params, laid end to end.

    Parameters
    ----------
    value_and_grad : params -> (loss, gradients), such as rv.value_and_grad(loss).
    params : a tree of arrays, where to begin.
    iterations : at most so many; each takes one evaluation or a few (its line search).
    options : passed on to scipy.optimize.minimize as its options, such as ftol, gtol, maxcor.

    Returns the parameters found, and SciPy's result (its message, nit, nfev, fun).
    Raises ImportError without SciPy; TypeError where params hold no floats.

    Cost: one to two gradients an iteration, and some twenty vectors like the parameters.
    Source: Byrd, Lu, Nocedal & Zhu 1995.

    Example
    -------
    >>> found, report = lbfgs(lambda p: (np.sum((p - 3.0) ** 2), 2 * (p - 3.0)), np.zeros(2))
    >>> found.round(6).tolist()
    [3.0, 3.0]
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


def _step(name: str, state: Any, *kept: str) -> int:
    """The step that a state has reached."""
    if not isinstance(state, dict) or state.keys() != {"step", *kept}:
        raise TypeError(f"{name}: this state is {tree.describe(state)}, which is none of {name}; begin with {name}(...).init(params)")
    return int(number(state["step"]))


def _zeros(params: Any) -> Any:
    return tree.map(lambda x: np.zeros_like(x) if is_float(x) else None, params)


def _each(fn: Callable, first: Any, *others: Any, keep: int | None = None) -> Any:
    """fn on the leaves of several trees. Where the first is None: None, or the leaf number `keep` as it is."""
    def leaf(*row: Any) -> Any:
        if row[0] is None:
            return None if keep is None else row[keep]
        if np.shape(row[0]) != np.shape(row[1]):
            raise ValueError(f"update: a gradient of shape {np.shape(row[0])} was given for a parameter of shape {np.shape(row[1])}")
        return fn(*row)

    return tree.map(leaf, first, *others)


def _at(lr: Rate, step: int) -> float:
    return float(lr(step) if callable(lr) else lr)           # NumPy's own numbers would make float64 of float32


def _check_rate(name: str, lr: Rate) -> None:
    if not callable(lr) and not lr > 0:
        raise ValueError(f"{name}: lr={lr!r}; a positive number, or a function of the step")
