"""Literal, loop-only transcriptions of the published methods, to be read beside the papers.

Nothing here imports `revode`, and nothing here is fast. The loops use only + - * / and whatever the vector
field returns, so one and the same loop runs on floats, exact `Fraction`s, complex numbers (complex step),
mpmath numbers (object arrays) and HIPS autograd boxes.

    tableaux.py    Butcher tableaux as exact fractions, euler to tsit5
    trees.py       rooted trees and the order conditions they give, exactly, to any order
    loops.py       every method: one step, the step undone by the paper's formula, the solve over a grid
    gradients.py   complex step, autograd, mpmath differences; Coupled's gradient by hand; revolve's counts
    problems.py    small test problems, each vector field written once for every kind of number
"""
