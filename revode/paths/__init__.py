"""Noise and controls: the paths that drive an equation, recomputed when they are needed. NumPy alone; no solver in
here."""
from .brownian import Brownian, BrownianTree
from .control import HermiteCubic, LinearPath, Rectilinear

__all__ = ["Brownian", "BrownianTree", "HermiteCubic", "LinearPath", "Rectilinear"]
