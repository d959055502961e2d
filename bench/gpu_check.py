"""The steps of ``bench/gpu_check.sh``, which says what they are for. Only the standard library is needed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from gpu_requirements import how_to_get

ROOT = Path(__file__).parents[1]
USAGE = "usage: bench/gpu_check.sh [--dry-run] [OUT]"
PASSED, FAILED, LEFT_OUT, NOT_REACHED = "passed", "FAILED", "left out", "not reached"
REQUIREMENTS_SECONDS = 40
GRACE_SECONDS = 5  # from the request to stop to the kill
interrupted = (
    threading.Event()
)  # by Ctrl-C or SIGTERM: the running step is stopped, the summary comes all the same


@dataclass(frozen=True)
class Step:
    """A command with the seconds allotted to it. What it leaves unspent, later steps may use."""

    name: str
    seconds: int
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    tests: Path | None = None  # JUnit XML that it writes
    rows: Path | None = None  # benchmark results that it writes
    needs: str | None = None  # a program without which it is left out
    says: str | None = None  # a pattern of its output, without which it has not passed


@dataclass(frozen=True)
class Outcome:
    """A line of the summary."""

    step: str
    result: str
    seconds: float = 0.0
    note: str = ""


def steps(out: Path, architecture: str) -> list[Step]:
    """In the order in which they run."""
    python = sys.executable
    build = {"LED_FAST_CUDA": "1", "CMAKE_CUDA_ARCHITECTURES": architecture}
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--editable",
        ".",
    ]
    # By name, because collecting the other tests needs packages that a bare machine lacks.
    files = sorted((ROOT / "python_tests").glob("test_cuda_*.py"))
    results = out / "results.json"
    return [
        Step("build", 110, pip, build),
        _tests_of("tests", 130, out, [str(path.relative_to(ROOT)) for path in files]),
        *(_sanitizer(*tool, out) for tool in (("memcheck", 40), ("racecheck", 40), ("synccheck", 30))),
        Step("benchmark", 85, [python, "bench/gpu_benchmark.py", str(results)], rows=results),
    ]


def _tests_of(name: str, seconds: int, out: Path, tests: list[str]) -> Step:
    results = out / f"{name}.xml"
    pytest = [sys.executable, "-m", "pytest", "-m", "cuda", "--durations=5", f"--junitxml={results}", *tests]
    return Step(name, seconds, pytest, tests=results)


def _sanitizer(tool: str, seconds: int, out: Path) -> Step:
    tests = _tests_of(tool, seconds, out, ["python_tests/test_cuda_operators.py::test_kernels_alone"])
    # Our kernels only: those of libraries are not ours to check. C++ mangles namespace led to 3led. This rules out
    # initcheck, which would not see what PyTorch's kernels write.
    command = ["compute-sanitizer", "--tool", tool, "--kernel-name", "kns=3led", "--error-exitcode", "1"]
    return replace(
        tests,
        command=[*command, *tests.command],
        environment={
            "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"
        },  # each tensor is an allocation, with bounds of its own
        needs="compute-sanitizer",
        says=r"(ERROR|RACECHECK) SUMMARY: 0 (errors|hazards)",
    )


def shown(step: Step) -> str:
    settings = [f"{name}={value}" for name, value in step.environment.items()]
    return shlex.join([*(["env", *settings] if settings else []), *step.command])


def run(step: Step, deadline: float, log: Path) -> Outcome:
    """Runs a step until the deadline, its output on the terminal and in the log."""
    start = time.monotonic()
    print(f"\n== {step.name} (at most {deadline - start:.0f} s)\n   {shown(step)}", flush=True)
    # A session of its own, so that all its processes can be stopped.
    process = subprocess.Popen(
        step.command,
        env={**os.environ, **step.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    reader = threading.Thread(target=_copy, args=(process, log), daemon=True)
    reader.start()
    while _runs(process, 0.1) and not interrupted.is_set() and time.monotonic() < deadline:
        pass
    problems, notes = [], []
    if process.returncode is None:
        problems.append("interrupted" if interrupted.is_set() else "stopped at its time limit")
        stop(process)
    elif process.returncode:
        problems.append(f"exit code {process.returncode}")
    reader.join(2)
    for check, path in ((_tests, step.tests), (_rows, step.rows)):
        if path is not None:
            wrong, note = check(path)
            problems += wrong
            notes.append(note)
    if step.says and not problems and not re.search(step.says, log.read_text(errors="replace")):
        problems.append("it does not say that it found nothing")
    result = FAILED if problems else PASSED
    return Outcome(step.name, result, time.monotonic() - start, "; ".join([*problems, *filter(None, notes)]))


def _copy(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdout is not None
    with log.open("wb") as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            sys.stdout.buffer.write(line)
            sys.stdout.flush()


def _runs(process: subprocess.Popen[bytes], patience: float) -> bool:
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        return True
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks as Ctrl-C does, because pytest then still writes its results; kills what does not listen."""
    os.killpg(process.pid, signal.SIGINT)
    if _runs(process, GRACE_SECONDS):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tests(path: Path) -> tuple[list[str], str]:
    """What is wrong with a step's tests, and how many there were."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return ["no test results were written"], ""
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    passed = len(cases) - len(failed) - len(skipped)
    problems = []
    if failed:
        problems.append(f"{len(failed)} failed")
    if passed + len(failed) == 0:
        problems.append("not one test ran")
    reasons = dict.fromkeys(str(case.find("skipped").get("message")) for case in skipped)  # type: ignore[union-attr]
    note = f"{passed} tests passed"
    if skipped:
        note += (
            f", {len(skipped)} skipped ({'; '.join(list(reasons)[:4])}{'; …' if len(reasons) > 4 else ''})"
        )
    return problems, note


def _rows(path: Path) -> tuple[list[str], str]:
    """Likewise of a benchmark's rows."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return ["no results were written"], ""
    problems = [] if result["complete"] else ["results are incomplete"]
    errors = sum("error" in row for row in result["rows"])
    if errors:
        problems.append(f"{errors} rows with errors")
    return problems, f"{len(result['rows']) - errors} rows in {path}"


def requirements() -> dict | None:
    """What the machine has, or None, said, where something is missing or an answer did not come."""
    command = [sys.executable, "bench/gpu_requirements.py"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=REQUIREMENTS_SECONDS)
        found = json.loads(done.stdout.strip().split("\n")[-1])
    except subprocess.TimeoutExpired:
        print(f"gpu_check: torch and the GPU did not answer in {REQUIREMENTS_SECONDS} s", file=sys.stderr)
        return None
    except ValueError:
        print(f"gpu_check: {shlex.join(command)} failed:\n{done.stderr}", file=sys.stderr)
        return None
    if found["missing"]:
        lines = [*(f"- {sentence}" for sentence in found["missing"]), *how_to_get(found["packages"])]
        print("\n".join(["gpu_check: this machine lacks", *lines]), file=sys.stderr)
        return None
    return found


def run_all(todo: list[Step], out: Path, start: float, environment: dict[str, str]) -> list[Outcome]:
    """Runs step after step; what cannot follow a failure is not reached. summary.json grows with them."""
    outcomes: list[Outcome] = []
    allotted, build_failed = float(REQUIREMENTS_SECONDS), False
    for step in todo:
        allotted += step.seconds
        for stale in filter(None, (step.tests, step.rows)):
            stale.unlink(missing_ok=True)
        if interrupted.is_set() or build_failed:
            note = "interrupted" if interrupted.is_set() else "the build failed"
            outcomes.append(Outcome(step.name, NOT_REACHED, note=note))
        elif step.needs and shutil.which(step.needs) is None:
            outcomes.append(Outcome(step.name, LEFT_OUT, note=f"{step.needs} is not installed"))
        else:
            outcomes.append(run(step, start + allotted, out / f"{step.name}.txt"))
            build_failed = step.name == "build" and outcomes[-1].result != PASSED
        save(out / "summary.json", environment, outcomes)
    return outcomes


def save(path: Path, environment: dict[str, str], outcomes: list[Outcome]) -> None:
    content = {"environment": environment, "steps": [asdict(outcome) for outcome in outcomes]}
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def summary(outcomes: list[Outcome]) -> str:
    return "\n".join(f"{o.step:12} {o.result:12} {o.seconds:5.0f} s  {o.note}".rstrip() for o in outcomes)


def exit_code(outcomes: list[Outcome]) -> int:
    results = {outcome.result for outcome in outcomes}
    if results & {FAILED, NOT_REACHED}:
        return 1
    return 3 if LEFT_OUT in results else 0


VERDICTS = {
    0: "all steps passed",
    1: "NOT passed",
    3: "what ran passed, but not everything ran",
}


def main(arguments: list[str]) -> int:
    start = time.monotonic()
    dry_run = arguments[:1] == ["--dry-run"]
    arguments = arguments[dry_run:]
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(USAGE, file=sys.stderr)
        return 2
    out = Path(arguments[0] if arguments else "bench/results/gpu").resolve()
    os.chdir(ROOT)
    if dry_run:
        for step in steps(out, "GPU-ARCHITECTURE"):
            print(f"== {step.name} ({step.seconds} s)\n   {shown(step)}")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    found = requirements()
    if found is None:
        return 2
    out.mkdir(parents=True, exist_ok=True)
    print(", ".join(f"{name} {value}" for name, value in found["environment"].items()))
    outcomes = run_all(steps(out, found["architecture"]), out, start, found["environment"])
    code = exit_code(outcomes)
    print(f"\n{summary(outcomes)}\ngpu_check: {VERDICTS[code]}; results in {out}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
