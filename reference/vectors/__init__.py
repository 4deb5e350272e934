"""The conformance cases that `revode check` runs, made here from the literal loops in 50 digits; nothing imports `revode`.

    python -m reference.vectors            write them, into revode/conformance/cases (they are installed with the package)
    python -m reference.vectors --check    make them again and compare, number for number

    problems.py    the vector field, the noise, the grids and the numbers that go in
    table.py       which methods, which options, on which problem
    oracle.py      every step of one case: states, cotangents, evaluations

torchsde_reversible_heun.json is older and another's: what torchsde itself gives, kept by reference/adapters.
"""
