"""What is checked before a release, and is too long for every run of the tests.

    python -m reference.release_check                    everything (hours on two cores: all_tests and mutations most of them)
    python -m reference.release_check site types         these alone
    python -m reference.release_check --quick            what CI runs besides the tests: some minutes

Needs `pip install -e ".[release]"`; screenshots need Chromium, which is looked for. Each check prints its time, and a line with
its fault. Nothing is passed over in silence: what cannot be had here is said, and counts as a fault unless --lenient.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUIET = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
SAMPLE = ("00", "gallery/pendulum")            # the notebooks that CI executes
SHOTS = ("", "getting-started/", "which-method/", "01-the-engine/", "08-any-method-made-reversible/", "15-train-your-own/", "gallery/",
         "gallery/density/", "how-to/", "api/solving/", "api/methods/", "answers/", "measurements/", "changelog/")


class Missing(Exception):
    """Something that a check needs is not on this machine."""


def run(*command: str | Path, cwd: Path = ROOT, env: dict | None = None) -> str:
    """The output of a command; RuntimeError with the end of it where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env or QUIET, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout + done.stderr


def python(*words: str | Path, **how: Path) -> str:
    return run(sys.executable, *words, **how)


def site(folder: Path) -> str:
    """The site is built strictly, and is whole: links, titles, descriptions, alternative texts, nothing from elsewhere."""
    python("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder / "site")
    return python("-m", "reference.site.check", folder / "site").strip().splitlines()[-1]


def screenshots(folder: Path) -> str:
    """Pictures of the main pages, to be looked at; no formula is left unset."""
    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        raise Missing("no Chromium; apt-get install chromium")
    if not (folder / "site" / "index.html").exists():
        site(folder)
    port = "8765"
    server = subprocess.Popen([sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"], cwd=folder / "site",
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shots = Path(tempfile.gettempdir()) / "revode-screenshots"
    shots.mkdir(exist_ok=True)
    try:
        time.sleep(1)
        for page in SHOTS:
            common = (browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000")
            address = f"http://127.0.0.1:{port}/{page}"
            run(*common, "--hide-scrollbars", "--window-size=1280,1600",
                f"--screenshot={shots / ((page.strip('/') or 'home').replace('/', '-') + '.png')}", address)
            shown = run(*common, "--dump-dom", address)
            if 'class="arithmatex">\\' in shown or "katex-error" in shown:
                raise RuntimeError(f"{page}: a formula is not set")
    finally:
        server.terminate()
        server.wait()
    return f"{len(SHOTS)} pages in {shots}"


def notebooks(folder: Path, names: tuple[str, ...] = ()) -> str:
    """Pages as notebooks, executed; all of them, or these."""
    python("-m", "reference.site.notebooks", folder / "notebooks")
    done = python("-m", "reference.site.notebooks", "--run", *names)
    return f"{len(list((folder / 'notebooks').rglob('*.ipynb')))} written, {done.count('.ipynb: ')} executed"


def mypy(folder: Path) -> str:
    """The package's own types."""
    return python("-m", "mypy").strip().splitlines()[-1]


def types(folder: Path) -> str:
    """mypy and pyright on a user's program, in a folder of its own: nothing wrong in `right`, each mark of `wrong` found."""
    text = (ROOT / "reference" / "site" / "user_program.py").read_text()
    user = folder / "user"
    user.mkdir()
    (user / "program.py").write_text(text)
    marked = {n for n, line in enumerate(text.splitlines(), 1) if line.endswith("# wrong")}
    for command in (("mypy", "--check-untyped-defs", "program.py"), ("pyright", "--pythonpath", sys.executable, "program.py")):
        done = subprocess.run([sys.executable, "-m", *command], cwd=user, env=QUIET, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if "program.py:" in line and "error" in line]
        found = {int(line.split("program.py:")[1].split(":")[0]) for line in lines}
        if found != marked:
            raise RuntimeError(f"{command[0]}: errors in lines {sorted(found)}, expected in {sorted(marked)}\n{done.stdout}")
    return f"{len(marked)} mistakes found by each"


TRY = """
import pathlib, sys
import numpy as np, revode as rv, revode_cuda
home = pathlib.Path(rv.__file__).parent
assert not home.is_relative_to(pathlib.Path(sys.argv[1])) or sys.argv[2] == "editable", home
for folder, ending in (("revode_cuda/kernels", "*.cu"), ("revode_cuda/host", "*.hpp"), ("revode", "py.typed")):
    assert list((home.parent / folder).glob(ending)), folder
from revode_cuda.compile import kernel_source
from revode.experiments.hare_lynx import hare_and_lynx
p = rv.value_and_grad(lambda p: rv.solve(lambda t, y, p: -p * y, np.ones(2), np.linspace(0, 1, 301), p,
                                         backend=sys.argv[3], save=[-1]).y1.sum())(0.5)
assert abs(p[0] - 2 * np.exp(-0.5)) < 1e-9 and abs(p[1] + 2 * np.exp(-0.5)) < 1e-9
print(rv.__version__)
"""


def wheel(folder: Path) -> str:
    """A source archive with tests and docs, a wheel built from it, used in an empty folder; an editable copy from above the clone."""
    python("-m", "build", "--quiet", "--outdir", folder / "dist")
    archive, = (folder / "dist").glob("*.tar.gz")
    inside = run("tar", "-tzf", archive)
    for wanted in ("/tests/conftest.py", "/docs/index.md", "/mkdocs.yml", "/reference/release_check.py", "/LICENSE"):
        if wanted not in inside:
            raise RuntimeError(f"the source archive has no {wanted}")
    made, = (folder / "dist").glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    own, empty = folder / "venv" / "bin" / "python", folder / "empty"
    empty.mkdir()
    (folder / "try.py").write_text(TRY)
    backend = "native" if shutil.which("g++") or shutil.which("clang++") else "replay"
    run(own, "-m", "pip", "install", "--quiet", made, cwd=empty)
    version = run(own, folder / "try.py", ROOT, "wheel", backend, cwd=empty).strip()
    run(folder / "venv" / "bin" / "revode", "--help", cwd=empty)
    for text in ROOT.rglob("*.c*"):                        # every text that a backend compiles is in the wheel
        if text.suffix in (".cu", ".cuh", ".hpp") and text.relative_to(ROOT).parts[0] in ("revode", "revode_cuda"):
            if text.relative_to(ROOT).as_posix() not in run("unzip", "-l", made):
                raise RuntimeError(f"the wheel lacks {text.relative_to(ROOT)}")
    run(own, "-m", "pip", "install", "--quiet", "-e", ROOT, cwd=empty)
    for where in (empty, ROOT.parent):
        run(own, folder / "try.py", ROOT, "editable", "replay", cwd=where)
    return f"revode {version}, {made.stat().st_size / 1e6:.1f} MB"


def mutations(folder: Path) -> str:
    """Every change of a sign, factor or comparison is noticed by a test."""
    parts = os.cpu_count() or 1
    with ThreadPoolExecutor(parts) as pool:
        said = pool.map(lambda k: python("-m", "tests.mutation.mutate", "--all", "--part", f"{k + 1}/{parts}"), range(parts))
        return "; ".join(text.strip().splitlines()[-1] for text in said)


def fuzz(folder: Path) -> str:
    """Half an hour of random programs against an oracle that shares no code."""
    return python("-m", "tests.fuzz", "--seconds", "1800", "--native", "20").strip().splitlines()[-1]


def book(folder: Path) -> str:
    """Every page shows what its code prints."""
    return f"{len(python('-m', 'tests.docs.run_chapters').splitlines())} pages"


def all_tests(folder: Path) -> str:
    """All tests: the long ones too, all cases of those of which a sample is for every day, and compiled as a user's programs are."""
    done = python("-m", "pytest", "-n", "auto", "--dist", "worksteal", "-m", "", "--thorough", "-p", "no:cacheprovider")
    return done.strip().splitlines()[-1].strip("= ")


def quick_notebooks(folder: Path) -> str:
    """A sample of the notebooks, executed."""
    return notebooks(folder, SAMPLE)


CHECKS: dict[str, Callable[[Path], str]] = {check.__name__: check for check in (
    site, mypy, types, wheel, quick_notebooks, notebooks, screenshots, book, all_tests, mutations, fuzz)}
QUICK = ("site", "types", "mypy", "wheel", "quick_notebooks")          # none needs another, nor a quiet machine: two at a time


def fault(name: str, folder: Path, lenient: bool) -> bool:
    """Whether a check has one; its line is printed."""
    began, wrong = time.perf_counter(), False
    print(f"{name:16}  began {time.strftime('%H:%M')}", flush=True)
    try:
        said = CHECKS[name](folder)
    except Missing as error:
        wrong, said = not lenient, f"NOT DONE: {error}"
    except RuntimeError as error:
        wrong, said = True, f"FAILED: {error}"
    print(f"{name:16} {time.perf_counter() - began:6.0f} s   {said}", flush=True)
    return wrong


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], epilog="\n".join(
        f"{name}: {(check.__doc__ or '').splitlines()[0]}" for name, check in CHECKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", nargs="*", help=f"of {', '.join(CHECKS)}; all without")
    parser.add_argument("--quick", action="store_true", help=f"those of CI: {', '.join(QUICK)}")
    parser.add_argument("--lenient", action="store_true", help="what cannot be had on this machine is no fault")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.check) - set(CHECKS))
    if unknown:
        parser.error(f"there is no check {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    wanted = options.check or (QUICK if options.quick else [name for name in CHECKS if name != "quick_notebooks"])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2 if options.quick else 1) as pool:
        faults = sum(pool.map(lambda name: fault(name, Path(folder), options.lenient), wanted))
    print(f"{len(wanted) - faults} passed, {faults} failed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
