"""Peak memory of one gradient against the number of steps, measured in bytes.   python docs/figures/memory.py"""
import tracemalloc

import numpy as np
import style

import revode as rv


def field(t, q, params):
    return -params["k"] * np.sin(q)


def peak(gradient, N: int, batch: int = 1000) -> int:
    """Bytes allocated at the worst moment of one gradient of `batch` pendulums over N steps."""
    ts = np.linspace(0.0, 10.0, N + 1)
    start = (np.ones(batch), np.zeros(batch))

    def loss(params):
        # On the tape: the buffers of a compiled program would be a step in the curve, from 200 steps on.
        q, _ = rv.solve(field, start, ts, params, method=rv.SemiImplicitEuler(), gradient=gradient, save=[-1],
                        backend="eager").y1
        return 0.5 * np.sum(q**2)

    tracemalloc.start()
    rv.grad(loss)({"k": 2.0})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def main() -> None:
    Ns = [100, 200, 400, 800, 1600, 3200]
    figure, ax = style.subplots(1, 7.0, 4.2)
    for gradient, line in ((rv.Direct(), "o-"), (rv.Checkpointed(20), "^-"), (rv.Reversible(), "s-")):
        mebibytes = [peak(gradient, N) / 2**20 for N in Ns]
        print(gradient, [f"{m:.3g}" for m in mebibytes])
        ax.loglog(Ns, mebibytes, line, label=repr(gradient).split("(resync")[0])
    ax.set(xlabel="steps N", ylabel="peak memory (MiB)")
    ax.set_xticks(Ns, [str(N) for N in Ns])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend()
    style.save(figure, __file__)


if __name__ == "__main__":
    main()
