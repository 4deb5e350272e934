"""What a plan is said to cost: accesses counted by hand, products by the shapes of the matrices."""
from __future__ import annotations

import numpy as np
import pytest

import revode as rv
from revode_cuda import estimate
from revode_cuda.plan import plan_of


@pytest.mark.parametrize(("what", "at", "size", "wavefronts"), [
    ("neighbours", range(0, 128, 4), 4, 1), ("one and the same", [64] * 32, 4, 1), ("a column of 32", range(0, 4096, 128), 4, 32),
    ("a column of 33: padded", range(0, 32 * 132, 132), 4, 1), ("two in a bank", range(0, 256, 8), 4, 2),
    ("doubles, by half warps", range(0, 256, 8), 8, 2), ("four floats, by quarter warps", range(0, 512, 16), 16, 4),
    ("half a warp", range(0, 64, 4), 4, 1), ("a column of doubles", range(0, 32 * 256, 256), 8, 32)])
def test_wavefronts(what: str, at: list[int], size: int, wavefronts: int) -> None:
    assert estimate.waves(list(at), size) == wavefronts, what


def test_a_product_and_sums_by_hand() -> None:
    """rv_linear<1, 4, 8> for 32 lanes and 32 threads: 8 * 32 / 32 = 8 outputs a thread, 4 lanes by 2 columns of them; 8 threads have
    all lanes, so a quarter warp reads one row of x in 16 bytes each (4 wavefronts), and half a warp two pairs of w, 8 bytes (2); each
    of its two rows is written by quarter warps: 4 wavefronts. rv_rows<32>: rows of 32 floats lie in the same banks, so that
    each of 8 neighbours that read 16 bytes waits for the others: 8 quarter warps of it for 32 lanes."""
    assert estimate.linear((1, 4, 8), 32, 32, 4) == (4 * (4 + 2) + 2 * 4, 4 * 8)
    assert estimate.rows(32, 32, 4) == (8 * 4 * 8, 32)
    # with 16 bytes behind them, neighbours lie in different banks: eight of them read 128 bytes in one go
    assert estimate.rows(32, 32, 4, stride=36) == (8 * 4, 32)
    # rv_outer<4, 8> for 2 lanes: one sum a thread, 8 bytes of both lanes: half a warp reads 2 and 8 rows of them, without conflicts
    wavefronts, products = estimate.outer((4, 8), 2, 32, 4)
    assert (wavefronts, products) == (2 + 2 + 2, 2)


def test_a_plan_says_what_a_step_takes() -> None:
    rng = np.random.default_rng(0)
    p = {"W": rng.normal(size=(8, 32)), "V": rng.normal(size=(32, 8))}
    options = {"method": rv.ReversibleHeun(), "arch": "sm_90"}
    field = lambda t, y, p: np.tanh(y @ p["W"]) @ p["V"]
    plans = plan_of(field, np.ones((4096, 8)), np.linspace(0.0, 1.0, 11), p, **options)
    for plan, most in zip(plans, (1, 4), strict=True):
        lanes, products = plan.T, 2 * 8 * 32 * most
        assert plan.counts.cycles >= products * lanes / 32 / 2                # an evaluation; and one, with its pullback
        assert plan.counts.blocks >= 1 and "wavefronts" in str(plan) and "estimated, never measured" in str(plan)
    fewer = plan_of(field, np.ones((4096, 8)), np.linspace(0.0, 1.0, 11), p, **options, plan={"threads": 64, "T": 8})
    assert (fewer.forward.threads, fewer.forward.T) == (64, 8) and fewer.forward.counts.wavefronts < plans.forward.counts.wavefronts
    unknown = plan_of(field, np.ones((64, 8)), np.linspace(0.0, 1.0, 11), p, method=rv.ReversibleHeun(), arch="sm_75")
    assert unknown.forward.counts.microseconds is None and "estimated" not in str(unknown)
