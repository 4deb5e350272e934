"""The command; see the package."""
from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from . import __doc__ as text
from .cases import ALLOWED, CASES, GPU_WORKS, UNITS, Case, Setting, no_gpu
from .desired import desired_values
from .libraries import CONTENDERS
from .plan import STEPS, Chosen, about_the_machine
from .prepare import prepare, warm
from .processes import Clock
from .report import archive, save, verdict

PROG = "python -m reference.benchmarks.gpu"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROG, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", metavar="FOLDER", help="where gpu.json and gpu.tar.gz go")
    parser.add_argument("--prepare", metavar="FOLDER", help="make there what needs no GPU: desired values, compiled kernels")
    parser.add_argument("--use", metavar="FOLDER", help="what --prepare has made")
    parser.add_argument("--arch", type=architecture, default="sm_90", help="for --prepare (sm_90)")
    parser.add_argument("--minutes", type=positive, help="time for all of it (25; of some steps their part of that; 60 to prepare)")
    parser.add_argument("--limit", type=positive, default=60.0, help="seconds for one case of one contender (60)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[*STEPS], metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=[*CONTENDERS], metavar="CONTENDER",
                        help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--cases", type=cases, help="such as small:coupled-midpoint:float32,w4:reversible-heun:float64")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, to try the benchmark out; no GPU is needed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.chosen = args.cases or CASES
    if not (args.worker or args.prepare or args.out):
        parser.error("give --out FOLDER, or --prepare FOLDER")
    if args.use and not Path(args.use).is_dir():
        parser.error(f"--use {args.use}: there is no such folder; --prepare makes one")
    return args


def cases(text: str) -> list[Case]:
    """Those of --cases."""
    found = [words.split(":") for words in text.split(",")]
    for words in found:
        if len(words) != 3:
            raise argparse.ArgumentTypeError(f"{':'.join(words)}: a case is work:method:dtype")
        for word, known in zip(words, (GPU_WORKS, UNITS, ALLOWED), strict=True):
            if word not in known:
                raise argparse.ArgumentTypeError(f"{':'.join(words)}: {word!r} is none of {', '.join(known)}")
    return [Case(*words) for words in found]


def positive(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return float(text)


def architecture(text: str) -> str:
    if not re.fullmatch(r"sm_\d{2,3}[af]?", text):
        raise argparse.ArgumentTypeError(f"{text}: one such as sm_90")
    return text


def main() -> int:
    args = parsed()
    if args.worker:
        from .worker import worker
        return worker(args.worker, args.chosen, Setting(Path(args.folder), args.rehearse), args.part)
    if args.prepare:
        make(args.prepare)
        return prepare(args.chosen, Setting(Path(args.prepare), args.rehearse), args.arch, 60 * (args.minutes or 60))
    missing = None if args.rehearse else no_gpu()
    if missing:
        print(f"no GPU, so nothing was measured: {missing}\nTry the benchmark out with --rehearse.", file=sys.stderr)
        return 2
    out = make(args.out)
    with tempfile.TemporaryDirectory(prefix="revode-gpu-") as scratch:
        if args.use:
            shutil.copytree(args.use, scratch, dirs_exist_ok=True)
        return benchmark(args, Setting(Path(scratch), args.rehearse, no_gpu() is None), out)


def make(folder: str) -> Path:
    """It, found out before anything is computed."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"{folder} cannot be made: {error}", file=sys.stderr)
        sys.exit(2)
    return Path(folder)


def benchmark(args: argparse.Namespace, setting: Setting, out: Path) -> int:
    """The chosen steps. What `out` holds of others stays."""
    results: dict = {"command": " ".join([PROG, *sys.argv[1:]]).replace(args.out, "OUT"), "about": about_the_machine(args.rehearse),
                     "chosen": [list(case) for case in args.chosen], "problems": [], "compiled": {}, "steps": {}, "peak": {},
                     "cases": {}, "versions": {}}
    if (out / "gpu.json").exists():
        before = json.loads((out / "gpu.json").read_text())
        results |= {name: before[name] for name in ("steps", "peak", "cases", "versions")}
    shares = sum(STEPS[name].minutes for name in args.steps)
    clock = Clock(60 * (args.minutes or shares))
    if setting.kernels:
        from revode_cuda.compile import arch
        results["compiled"] = warm(args.chosen, arch(), str(setting.folder))
        print("{kernels} kernels compiled or found in {seconds:.0f} s, the longest in {longest:.1f} s".format(**results["compiled"]))
    if "contenders" in args.steps:
        results["problems"] += desired_values(args.chosen, setting, Clock(0.35 * clock.left))
        print(f"desired values from the host; {clock.left:.0f} s left", flush=True)
    chosen = Chosen(args.chosen, args.only, args.limit)
    for name in args.steps:
        seconds = clock.left * STEPS[name].minutes / shares
        shares -= STEPS[name].minutes
        step: dict = {"seconds": seconds, "rows": []}
        results["steps"][name] = step
        try:
            for answer in STEPS[name].run(chosen, setting, seconds):
                took(answer, name, step["rows"], results)
                save(results, out)
        except Exception as error:                          # of this script: the other steps are worth their time all the same
            took({"status": "failed", "detail": f"{type(error).__name__}: {error}"}, "this script", step["rows"], results)
        save(results, out)
        archive(results, setting.folder, out)
    print(f"written: gpu.json, gpu.tar.gz; {clock.left:.0f} s left")
    return verdict(results)


def took(answer: dict, name: str, rows: list, results: dict) -> None:
    """Note an answer, and say it."""
    if "versions" in answer:
        results["versions"] |= answer["versions"]
        return
    if "status" not in answer:                              # one that has begun
        return
    if "peak" in answer:
        results["peak"] = answer["peak"]
        return
    key = answer.get("contender")
    if key:
        case = Case(*answer["case"].split(":"))
        results["cases"].setdefault(key, {})[str(case)] = {**case._asdict(), **answer}
    elif name != "contenders":
        rows.append(answer)
    shown = f"{1e3 * answer['seconds']:9.3f} ms" if "seconds" in answer else answer.get("detail", "")[:100]
    print(f"{key or name:16} {answer.get('case', ''):36} {answer['status']:9} {shown}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
