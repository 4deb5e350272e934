"""The GPU benchmark: bits, repeatability, errors, times, and the share of the peak. Checks before it times.

    python -m reference.benchmarks.gpu --prepare ready              # without a GPU: desired values, and kernels that are compiled
    python -m reference.benchmarks.gpu --use ready --out results    # writes results/gpu.json and gpu.tar.gz; needs a GPU and CuPy
    python -m reference.benchmarks.gpu --out results --rehearse     # tiny sizes, on the host where there is no GPU

Without --use both are made first, the kernels by many processes; none is compiled while something is timed. The steps (plan.py)
take 25 minutes on a GPU that nobody has seen; --steps takes some of them, and what OUT holds of the others stays.

    bits         the fused kernel in strict mode against the same source compiled for the host
    sanitizer    compute-sanitizer over one small solve and its gradient
    layouts      microseconds a step, by CUDA events, for threads and tiles of other sizes than the plan's
    host         a training step of ten steps, which is all host path and launches
    ncu          what the kernels wait for: no instructions, banks of shared memory
    contenders   errors of every contender against NumPy in float64, two runs equal in every bit or not, then times, and FLOP/s of
                 the matrix products over the peak that a large product reaches on this device
    tests        tests/gpu

Everything runs in processes of its own with a time limit, so that a crash or a hang costs one case; after an error of CUDA's,
which spoils all that follows, the rest goes to a new process. Every line is kept in gpu.json as it comes, and what could not be
run is listed with the reason; the archive holds the report (gpu.md) and the logs. The exit status is 0; 1 where one of revode's own
results is wrong, or did not come; 2 where there is no GPU.

    cases.py      what is computed, and how far off it may be       processes.py  cases in processes that may crash or hang
    libraries.py  by whom                                           worker.py     what such a process does
    desired.py    the desired values                                layouts.py    microseconds a step
    prepare.py    all that needs no GPU                             plan.py       the steps, in their order
    judged.py     errors, bits, times of one case                   report.py     gpu.json, gpu.md, gpu.tar.gz
"""
