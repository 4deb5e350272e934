"""Random solves against literal loops, which share no code with the project.

    fields.py      random vector fields, written once for NumPy and for complex numbers
    literal.py     every method as a loop over frozen increments; gradients by the complex step
    solves.py      kinds ode, sde, cde, adaptive, chain: random field x method x gradient mode x backend
    programs.py    kinds closures, windows, threads, minibatch, buffers: a solve after another that looks like it
    contract.py    kind contract: the defaults and named methods on problems that contract, against a fine loop

    python -m tests.fuzz --seed 0 --seconds 300 --kind ode,sde          a longer run
    python -m tests.fuzz --kind ode --only 17                           one case again
"""
