"""python -m reference.interrupts [--times 30]: how long a compiled solve takes to end after Ctrl-C.

A child solves over and over, of a large batch (512 states of width 64, a network of 512: one call of the compiled code is long) or on
a long grid (two million steps of a tiny network, natively), and is sent SIGINT at random moments. Prints the distribution of the
time from the signal to its KeyboardInterrupt: a call of compiled code is at most some .2 s long (tiles.WORK).
"""
from __future__ import annotations

import argparse
import random
import signal
import statistics
import subprocess
import sys
import time

CHILD = '''
import signal, sys, time
import numpy as np
import revode as rv
signal.signal(signal.SIGINT, signal.default_int_handler)
kind, backend, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
field = lambda t, y, p: np.tanh(np.tanh(y @ p[0]) @ p[1]) @ p[2]
if kind == "large":
    W, y0 = [0.05 * rng.normal(size=s) for s in ((64, 512), (512, 512), (512, 64))], rng.normal(size=(512, 64))
    ts = np.linspace(0, 1, 400)
else:
    W, y0 = [0.3 * rng.normal(size=s) for s in ((2, 10), (10, 10), (10, 2))], rng.normal(size=2)
    ts = np.linspace(0, 10, 2_000_001 if backend == "native" else 200_001)
solve = lambda ts: rv.solve(field, y0, ts, W, backend=backend, save=[-1])
solve(ts[:3])
print("ready", flush=True)
for _ in range(times):
    try:
        while True:
            solve(ts)
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
'''


def delays(kind: str, backend: str, times: int) -> list[float]:
    """Seconds from each signal to its exception, sorted."""
    found, when = [], random.Random(0)
    with subprocess.Popen([sys.executable, "-c", CHILD, kind, backend, str(times)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        for _ in range(times):
            time.sleep(when.uniform(0.3, 0.9))
            sent = time.monotonic()
            child.send_signal(signal.SIGINT)
            found.append(float(child.stdout.readline()) - sent)
    return sorted(found)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--times", type=int, default=30, help="signals of each kind")
    times = ap.parse_args().times
    for kind in ("large", "long"):
        for backend in ("native", "replay"):
            found = delays(kind, backend, times)
            print(f"{kind:5} {backend:6}  median {1e3 * statistics.median(found):4.0f} ms, nine of ten below "
                  f"{1e3 * found[int(0.9 * (times - 1))]:4.0f} ms, largest {1e3 * found[-1]:4.0f} ms", flush=True)


if __name__ == "__main__":
    main()
