"""`import cupy` of a process that finds this folder first: the pretended CuPy (tests/pretended_cupy.py), for as long as it runs."""
from tests.pretended_cupy import play

play()
