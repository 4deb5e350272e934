"""Engines: who takes the steps of a solve. Every gradient mode is a schedule of the verbs of one protocol (protocol.py).

    "eager"    the tape, operation by operation (eager.py), for any solve and for derivatives of derivatives
    "replay", "native", "fused"    programs of a step, traced once: compiled/replay.py, compiled/tiles.py, revode_cuda/fused.py
"""
from .eager import Eager
from .protocol import Engine, engine_of

__all__ = ["Eager", "Engine", "engine_of"]
