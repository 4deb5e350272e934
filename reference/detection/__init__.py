"""How often is a bad gradient returned without a word? Measured over random solves, and on the problems of DETEST.

    families.py   nine families of random problems
    methods.py    the methods, exact and nearly reversible, that are drawn for them
    cases.py      one random solve: problem, method, grid, what is saved, what the loss is
    judge.py      its gradients: by the mode on trial, by Direct, of the problem itself, and what plain midpoint misses
    tables.py     counts by family and by method, as text and as a page of the documentation
    detest.py     non-stiff DETEST with the defaults, against SciPy's RK45
"""
