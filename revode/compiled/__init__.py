"""From a traced step to fast loops: programs, and what runs them."""
from .backend import Backend
from .program import Program, interpret, simplify, trace

__all__ = ["Backend", "Program", "interpret", "simplify", "trace"]
