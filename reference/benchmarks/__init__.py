"""Loss and gradient of the same small problems by revode, by hand and by other libraries, side by side.

    python -m reference.benchmarks.run --help

    works.py         the problems: networks, batches, grids
    contenders/      who computes: one file a library, make(work, method, dtype, mode) -> run
    worker.py        one contender in one process: told to compute, one repetition at a time
    run.py           starts the workers, checks that they agree, lets them take turns, writes the report
    report.py        Markdown and the plot

This measures; it is not a test. What a test can hold is held in tests/unit/test_benchmarks.py.
"""
