"""From a traced step to fast loops: programs, and what runs them."""
from .backend import Backend

__all__ = ["Backend"]
