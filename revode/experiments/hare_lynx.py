"""Hare and lynx, 1900 to 1920: a public data set that ships, for examples.

Thousands of pelts that the Hudson's Bay Company bought in a year. They stand for the numbers of animals alive, and the
cycle of some ten years is real; that the pelts of a year are a steady share of the animals is an assumption.
Source: the table of Howard, Modeling Basics (Texas A&M, 2009), after Odum, Fundamentals of Ecology (1953), which reads
MacLulich's and Elton & Nicholson's curves; the numbers that Carpenter (2018) fits in the case study of Stan.
"""
from __future__ import annotations

import numpy as np

HARE = (30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1, 40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7)
LYNX = (4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4, 8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6)


def hare_and_lynx() -> tuple[np.ndarray, np.ndarray]:
    """The years, (21,), and thousands of pelts in each, (21, 2): hare, lynx.

    Example
    -------
    >>> years, pelts = hare_and_lynx()
    >>> years[[0, -1]].tolist(), pelts[0].tolist()
    ([1900.0, 1920.0], [30.0, 4.0])
    """
    return np.arange(1900.0, 1921.0), np.stack([HARE, LYNX], axis=-1)
