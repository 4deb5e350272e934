"""Every hand-written kernel beside its mirror: plain NumPy, one operation after the other, sums in the kernel's order.

A case takes `put` (onto the machine that runs the kernel), a dtype and what is told to the launch, and returns pairs
(actual, desired) that have to agree in every bit. tests/kernels runs them on the host shim, tests/gpu on a GPU.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from types import SimpleNamespace
from typing import Any

import numpy as np

import revode as rv
from revode.compiled.tiles import tree_sum
from revode_cuda import kernels
from revode_cuda.scores import LANES, NUMBERS, Tables

Pairs = list[tuple[Any, Any]]
H, LAM = 0.1, 0.999


def arrays(put: Callable, dtype: Any, count: int, shape: Any = (7, 43), seed: int = 0) -> list[Any]:
    """Twice each: where the kernel runs, and for the mirror."""
    rng = np.random.default_rng(seed)
    made = [rng.normal(size=shape).astype(dtype) for _ in range(count)]
    return [(put(x.copy()), x) for x in made]


def host_array(x: Any) -> np.ndarray:
    return x.get() if hasattr(x, "get") else np.asarray(x)


def same_bits(actual: Any, desired: Any) -> bool:
    actual, desired = host_array(actual), np.asarray(desired)
    return actual.dtype == desired.dtype and actual.shape == desired.shape and actual.tobytes() == desired.tobytes()


def assert_same_bits(pairs: Pairs) -> None:
    for i, (actual, desired) in enumerate(pairs):
        if not same_bits(actual, desired):
            np.testing.assert_array_equal(host_array(actual), desired, err_msg=f"pair {i}")
            raise AssertionError(f"pair {i}: equal numbers, other bits (a dtype, or the sign of a zero or of a NaN)")


# scale, c, whether it moves towards a part
SHEARS = [(LAM, H, True), (1.0, -H, False), (-1.0, 2.0, False), (-0.6, 1.6, False), (0.5, H, True)]


def shear_forward(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for scale, c, moves in SHEARS:
        (x, X), (a, A), (k, K) = arrays(put, dtype, 3)
        kernels.shear_forward(x, k, scale, c, a if moves else None, **how)
        pairs += [(x, scale * X + ((1.0 - scale) * A + c * K) if moves else scale * X + c * K), (k, K), (a, A)]
    return pairs


def shear_inverse(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for scale, c, moves in SHEARS:
        (x, X), (a, A), (k, K) = arrays(put, dtype, 3)
        kernels.shear_inverse(x, k, scale, c, a if moves else None, **how)
        pairs += [(x, (X - ((1.0 - scale) * A + c * K)) / scale if moves else (X - c * K) / scale), (k, K), (a, A)]
    return pairs


def shear_pullback(put: Callable, dtype: Any, **how: Any) -> Pairs:
    pairs = []
    for scale, c, moves in SHEARS:
        (x, X), (a, A), (k, K), (ax, AX), (aa, AA) = arrays(put, dtype, 5)
        ak = kernels.shear_pullback(x, k, ax, scale, c, *((a, aa) if moves else ()), **how)
        pairs += [(x, (X - ((1.0 - scale) * A + c * K)) / scale if moves else (X - c * K) / scale), (ak, c * AX),
                  (ax, scale * AX), (aa, AA + (1.0 - scale) * AX if moves else AA), (a, A), (k, K)]
    return pairs


def larger(a: Any, b: Any) -> Any:
    return np.where((a > b) | (a != a), a, b)


def scores(put: Callable, dtype: Any, **how: Any) -> Pairs:
    """Random states and cotangents, their tiles of 8 and of 4 trajectories; the last time there is a NaN."""
    return [pair for companion, spoilt in ((True, False), (False, False), (True, True)) for pair in scored(
        put, dtype, companion, spoilt, how)]


ROWS, F, P, WINDOWS, WIDE, NARROW, SIZE, N = 37, 3, 2, 4, 3, 2, 40, 20       # SIZE: trajectories with those that fill up a tile
ON, OFF = (np.arange(WINDOWS) * width + np.arange(width)[:, None] for width in (WIDE, NARROW))
EPS = 2.0 ** -12


def scored(put: Callable, dtype: Any, companion: bool, spoilt: bool, how: dict) -> Pairs:
    d, tables, x = drawn(dtype, companion, spoilt)
    out = put(np.empty((len(NUMBERS) + 4, -(-ROWS // LANES)), dtype))
    kernels.scores(tuple(map(put, tables)), put(x), out, EPS, float(np.finfo(dtype).tiny), **how)
    found = measured(d, np.dtype(dtype).type, companion)
    lanes = np.zeros((len(found), out.shape[1] * LANES), dtype)
    lanes[:, :ROWS] = [most(abs(np.reshape(terms, (-1, ROWS)))) for terms in found]
    lanes, half = lanes.reshape(len(found), -1, LANES), LANES // 2
    sums = np.isin(np.arange(len(found)), [NUMBERS.index("NEAR"), NUMBERS.index("LEFT")])[:, None, None]
    while half:
        first, second = lanes[..., :half], lanes[..., half:]
        lanes, half = np.where(sums, first + second, larger(first, second)), half // 2
    return [(out, lanes[..., 0])]


def drawn(dtype: Any, companion: bool, spoilt: bool) -> tuple[Any, tuple, np.ndarray]:
    """States, cotangents and weights; the tables that say where they are; and the buffer where they are."""
    rng = np.random.default_rng(5)
    normal: Callable = lambda *shape: rng.normal(size=shape).astype(dtype)
    tiles: Callable = lambda x, T: np.moveaxis(x.reshape(*x.shape[:-1], -1, T), -2, x.ndim - 3)
    d = SimpleNamespace(ahead=normal(WINDOWS * WIDE, P, F, SIZE), back=normal(WINDOWS * NARROW, 2 * P, F, SIZE),
                        memory=normal(2 * P + 2, F, SIZE), y_0=normal(ROWS, F), saved=normal(ROWS, F), weights=normal(2, P, WIDE),
                        back_weights=normal(7, 2 * P, NARROW), rise=1 + abs(normal(WINDOWS)), steps=abs(normal(WINDOWS)),
                        counts=np.array([0, 1, 1, 1]), scale=abs(normal(2, F, 1)), less=abs(normal(WINDOWS)) / 2)
    d.ahead[5, 1, 2, 30] = np.nan if spoilt else 3.0
    blocks = {"ahead": tiles(d.ahead, 8), "back": tiles(d.back, 4), "memory": tiles(d.memory, 4), "initial": d.y_0, "saved": d.saved,
              "other": 0 * d.y_0, "scratch": np.zeros((F + WINDOWS, ROWS))}
    at = dict(zip(blocks, np.cumsum([0, *(x.size for x in blocks.values())]).tolist(), strict=False))
    T = Tables()
    T.put(rows=ROWS, features=F, parts=P, output=1, count=len(NUMBERS) + 4, pairs=companion, N=N, apart=2, scratch=at["scratch"],
          initial=at["initial"], ahead=at["ahead"], ahead_T=8, ahead_lane=8, ahead_stride=P * F * 8,
          ahead_parts=[0, F * 8], looks=len(d.ahead),
          look=P * F * SIZE, ahead_windows=WINDOWS, ahead_width=WIDE, ahead_at=P * F * SIZE * ON, back=at["back"], back_T=4,
          back_lane=4,
          back_stride=2 * P * F * 4, back_parts=F * 4 * np.arange(2 * P), back_windows=WINDOWS, back_width=NARROW,
          back_at=2 * P * F * SIZE * OFF, memory=at["memory"], memory_stride=(2 * P + 2) * F * 4, came=F * 4 * np.arange(2 * P),
          weighed=2 * P * F * 4, largest=(2 * P + 1) * F * 4, compared=1, compared_at=[2 * P * F * SIZE * 3, at["saved"]], others=1,
          others_at=[at["other"]])
    T.weigh(ahead_weights=d.weights, rise=d.rise, steps=d.steps, counts=d.counts, scale=d.scale, back_weights=d.back_weights,
            less=d.less)
    return d, T.arrays(dtype), np.concatenate([np.ravel(x) for x in blocks.values()]).astype(dtype)


def added(terms: Any) -> Any:
    return reduce(np.add, terms, np.zeros_like(terms[0]))


def most(terms: Any) -> Any:
    return reduce(larger, terms, np.zeros_like(terms[0]))


def mixed(w: np.ndarray, x: np.ndarray, looks: np.ndarray) -> list:
    """What weights make of each window."""
    return [abs(added([w[p, j] * x[look, p, :, :ROWS] for p in range(len(w)) for j, look in enumerate(looks[:, k])]))
            for k in range(WINDOWS)]


def measured(d: Any, real: Any, companion: bool) -> list:
    """Of each number the terms, of whose sizes the largest is it, by trajectory."""
    eps, tiny, each = real(EPS), np.finfo(real).tiny, range(WINDOWS)
    gap, Y = (mixed(w, d.ahead, ON) for w in d.weights)
    e, dy, y, b, _, a, da = (mixed(w, d.back, OFF) for w in d.back_weights)
    memory, y_0, saved, yhat, a_saved = d.memory[..., :ROWS], d.y_0.T, d.saved.T, d.back[3, 1, :, :ROWS], d.back[3, 3, :, :ROWS]
    came, a_came, weighed, largest = memory[:P], memory[P:-2], memory[-2], memory[-1]
    scale = most([abs(y_0), *abs(d.ahead[:, 1, :, :ROWS])])
    s = [most([Y[j] * d.rise[j] for j in range(k + 1)]) / d.rise[k] for k in each]
    near, off = most([abs(y_0), *(y[k] * d.less[k] for k in each)]), abs(came - y_0)
    A = most([abs(a_came[1] * y_0), *(a[k] * y[k] for k in each), abs(a_saved * saved)])
    W = most([*(abs(a_came) * off), abs(a_saved) * abs(yhat - saved)])
    a_0 = added([d.back_weights[5, P + p, j] * a_came[p] for p in range(P) for j in range(NARROW)])
    a_near = most([abs(a_0), *(a[k] * d.less[k] for k in each)])
    nothing = np.zeros((1, ROWS), real)
    pairs: list = [nothing] * 4
    if companion:
        be, changes = [added(e[k] * b[k]) for k in each], [added(da[k]) / (2 * added(a[k]) + tiny) for k in each]
        ay = [added(larger(y[k] * a[k], real(0.01) * a[k] * scale)) for k in each]
        moved = [added(dy[k] * a[k]) + 1024 * eps * eps * ay[k] for k in each]
        pairs = [[gap[k] * d.steps[k] / (d.scale[0] * larger(s[k], eps * most(s[k])) + d.scale[1]) for k in each if d.counts[k]],
                 [added(be) / (added(moved) + tiny)], [added([be[k] / (ay[k] + tiny) for k in each]) * N / WINDOWS],
                 [added([be[k] * np.minimum(changes[k], 1 / (eps * eps)) / (moved[k] + tiny) for k in each]) * N / WINDOWS]]
    own = larger(scale, np.sqrt(eps) * most(scale)) + tiny
    W_Y = [off[1] / own, abs(yhat - saved) / own]
    return [d.ahead[..., :ROWS], scale, *pairs, W / (A + tiny), W_Y, off[1] / (near + eps * most(near) + tiny), weighed / (A + tiny),
            largest, a_came, nothing, [added(a_near * a_near)], [added(a_0 * a_0)], off, y_0, yhat - saved, saved]


def collect(put: Callable, dtype: Any, **how: Any) -> Pairs:
    """Gathered, zeros, and sums of 1 .. 40 and of 1000 tiles: neighbours first, as the host adds them."""
    (x, X), = arrays(put, dtype, 1, (1000, 6))
    count = np.array([0, 1, *range(1, 41), 1000], np.int32)
    start = (np.arange(count.size) % 6).astype(np.int32)
    out = put(np.empty(count.size, dtype))
    kernels.collect(tuple(map(put, (start, count, np.full(count.size, 6, np.int32)))), x, out, **how)
    return [(out, np.array([tree_sum(X[:n, k]) if n else 0.0 for n, k in zip(count, start, strict=True)], dtype)), (x, X)]


def adamw(put: Callable, dtype: Any, **how: Any) -> Pairs:
    """Three steps of the library's optimiser."""
    optimiser = rv.optim.adamw(1e-2, 0.1)
    (p, P), *gradients = arrays(put, dtype, 4)
    m, v = put(np.zeros_like(P)), put(np.zeros_like(P))
    state = optimiser.init(P)
    pairs: Pairs = []
    for n, (g, G) in enumerate(gradients, 1):
        kernels.adamw(p, g, m, v, n, 1e-2, 0.1, **how)
        P, state = optimiser.update(P, G, state)
        pairs += [(host_array(p).copy(), P), (host_array(m).copy(), state["m"]), (host_array(v).copy(), state["v"])]
    return pairs


CASES: dict[str, Callable] = {case.__name__: case for case in (
    shear_forward, shear_inverse, shear_pullback, scores, collect, adamw)}
SUBJECT = {"scores": "scores"}                       # those with barriers
DTYPES = (np.float64, np.float32)
BLOCKS = (1, 32, 96, 128)
