"""Warm fused solves as CUDA graphs, on a pretended capture: what it takes, what it refuses, and that nothing goes stale."""
from __future__ import annotations

import gc
import importlib
import logging
from typing import Any

import numpy as np
import pytest
from test_ahead import NUMBER, net, numbered, values

import revode
import revode_cuda as rv
from revode.watch import ahead as watch_ahead
from revode_cuda import host
from tests.pretended_cupy import DONE, Graph, Stream, pretended

if host.missing():
    pytest.skip(f"kernels cannot run on this machine: {host.missing()}", allow_module_level=True)
TS = np.linspace(0.0, 0.5, 21)
METHODS = [rv.ReversibleHeun(), rv.Coupled("midpoint"), rv.EES25()]


def gradient(solve: Any, field: Any, ts: Any, a: Any, y0: Any, params: Any, method: Any, **how: Any) -> tuple:
    ys, pull = rv.vjp(lambda y0, p: solve(field, y0, ts, p, method=method, save=[3, 20], arithmetic="strict", **how).ys, y0, params)
    return ys, pull(np.stack([a, 2 * a]))


def equal(found: Any, desired: Any) -> None:
    for x, y in zip(rv.tree.flatten(rv.to_host(found))[0], rv.tree.flatten(desired)[0], strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.sample(3)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_captured_step_is_ten_operations(method: Any, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laid end to end, a graph, a copy of what it leaves, both ways; zeros for what the loss does not read, the field's new number;
    and a copy to the host, for which it waits. New numbers in y0, params, cotangents and in the field come through, and what was
    returned stays as it was."""
    if large:
        monkeypatch.setattr(importlib.import_module("revode_cuda.solve"), "CROSSING", 0)
        monkeypatch.setattr(watch_ahead, "ROOM", 0)
    before: list = []
    with pretended():
        del Graph.ran[:]
        for seed in range(7):
            y0, a, params = values("c", seed)
            NUMBER[0] = 0.25 * (1 + seed)
            there = rv.to_device((a, y0, params))
            del DONE[:]
            found = gradient(rv.solve, numbered, TS, *there, method, backend="fused")
            if seed >= 5:
                assert len([x for x in DONE if x not in ("wait", "stack", "multiply")]) <= 10          # but for those of the cotangent
                assert DONE.count("graph") == 2 and DONE.count("wait") == 1 and DONE.count("run") == 0
            before.append((found, gradient(revode.solve, numbered, TS, a, y0, params, method, backend="native")))
        assert Graph.ran.count("run") >= 2 * 2 and Graph.ran.count("scores") == (Graph.ran.count("run") // 2 if large else 0)
        for found, desired in before:
            equal(found, desired)


@pytest.mark.long
def test_solves_that_share_a_kernel_have_graphs_of_their_own() -> None:
    """Two grids in turn: the tables of one are no longer those of the kernel's last launch when the other's graph runs."""
    with pretended():
        del DONE[:]
        for seed in range(8):
            y0, a, params = values("WbVc", seed)
            ts = TS if seed % 2 else 1.5 * TS
            found = gradient(rv.solve, net, ts, *rv.to_device((a, y0, params)), rv.ReversibleHeun(), backend="fused")
            gc.collect()
            equal(found, gradient(revode.solve, net, ts, a, y0, params, rv.ReversibleHeun(), backend="native"))
        assert DONE.count("graph") == 6


@pytest.mark.parametrize("how", ["refused", "asked", "noise"])
def test_without_a_graph_it_is_launched_kernel_by_kernel(how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
                                                         ) -> None:
    caplog.set_level(logging.INFO, "revode")
    monkeypatch.setattr(Stream, "refuses", how == "refused")
    more: dict = {"noise": rv.Brownian(3), "diffusion": lambda t, y, p: 0.3 * np.cos(y)} if how == "noise" else {}
    with pretended():
        del DONE[:]
        for seed in range(4):
            y0, a, params = values("WbVc", seed)
            found = gradient(rv.solve, net, TS, *rv.to_device((a, y0, params)), rv.ReversibleHeun(), backend="fused",
                             plan={"graph": how != "asked"}, **more)
            equal(found, gradient(revode.solve, net, TS, a, y0, params, rv.ReversibleHeun(), backend="native", **more))
        assert DONE.count("graph") == 0
    said = [x.message for x in caplog.records if "graph" in x.message]
    assert [x.partition("because")[2] for x in said] == (
        [": cudaErrorStreamCaptureUnsupported: this stream is not captured"] if how == "refused" else [])


def test_the_pretended_capture_refuses_what_cuda_refuses() -> None:
    with pretended() as cupy:
        x = cupy.asarray(np.ones(3))
        for refused in (x.get, lambda: x + x, lambda: cupy.asarray(np.ones(2)), lambda: cupy.empty(3), cupy.cuda.Stream().synchronize,
                        cupy.cuda.Stream().begin_capture):
            stream = cupy.cuda.Stream()
            stream.begin_capture()
            with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnsupported"):
                refused()
            stream.end_capture()
        with pytest.raises(ValueError, match="plan: graph=1; True or False"):
            rv.solve(net, np.ones(3), TS, plan={"graph": 1})
