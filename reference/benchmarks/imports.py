"""What `import revode` costs beside `import numpy`, in processor time.

    python -m reference.benchmarks.imports

Each in processes of its own with bytecode that is kept, turns taken, the least of 15: `import revode` (the bar: 1.3 times
`import numpy`, which is a part of it), and what a first gradient on the tape loads besides.
"""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile

BAR, TURNS = 1.3, 15
FIRST = "revode.grad(lambda y: revode.solve(lambda t, y, p: -y, y, numpy.linspace(0.0, 0.1, 3)).y1.sum())(numpy.ones(2))"
CODE = f"""
import time
times = [time.process_time()]
import numpy; times.append(time.process_time())
import revode; times.append(time.process_time())
{FIRST}; times.append(time.process_time())
print(*(b - a for a, b in zip(times, times[1:])))
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        rows = [list(map(float, subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True,
                                               env=environment).stdout.split())) for _ in range(TURNS + 1)][1:]
    numpy, revode, first = (1e3 * min(column) for column in zip(*rows, strict=True))
    ratio = (numpy + revode) / numpy
    print(f"import numpy {numpy:.1f} ms, revode {revode:.1f} ms more: {ratio:.2f} times (bar {BAR}); "
          f"a first gradient on the tape {first:.1f} ms more")
    return int(ratio > BAR)


if __name__ == "__main__":
    sys.exit(main())
