"""One process with many threads, or many with few: measured as workers run, in processes side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from shopvision.encoders.tuning.record import Tuning
from shopvision.errors import JobError, UserError

READY, GO = "ready", "go"
# Processes measure once each, so that a layout must be further ahead of the usual one than a batch size.
MARGIN = 1.05
PATIENCE_SECONDS = 300.0

Layout = tuple[int, int]
"""(threads, replicas)"""
Run = Callable[[Layout], list[list[Tuning]]]
"""What each replica of a layout measured of each network of the model."""


def candidates(cores: int, usual: Layout, most_replicas: int) -> list[Layout]:
    """Ways to share ``cores`` out among processes, the usual one first."""
    replicas = [1, 2, 4, 8, 16, cores]
    others = [(cores // count, count) for count in replicas if count <= min(cores, most_replicas)]
    return list(dict.fromkeys([usual, *others]))


def measure_layouts(layouts: Sequence[Layout], run: Run) -> list[Tuning]:
    """Measure a model in every layout.

    Args:
        layouts: the usual one first.
        run: measures in one.

    Returns:
        The tunings of every network for every number of threads, each with the layout that is best for the network.
    """
    measured = {layout: run(layout) for layout in layouts}
    tunings: dict[tuple[str, str, int], Tuning] = {}
    networks = range(len(measured[layouts[0]][0]))
    for network in networks:
        # A package is made for one number of threads: layouts are compared in ways that were measured in all of them.
        ways = set.intersection(*(_ways(replica[network]) for replicas in measured.values() for replica in replicas))
        speeds = {
            layout: sum(_speed(replica[network], ways) for replica in replicas) for layout, replicas in measured.items()
        }
        fastest = max(layouts, key=lambda layout: speeds[layout])
        usual = speeds[layouts[0]]
        best = fastest if speeds[fastest] >= MARGIN * usual else layouts[0]
        told = best if usual > 0 and len(layouts) > 1 else None
        for layout, replicas in measured.items():
            found = replicas[0][network].model_copy(update={"layout": told})
            tunings.setdefault((found.digest, found.part, layout[0]), found)
            if layout == best:
                tunings[found.digest, found.part, layout[0]] = found
    return list(tunings.values())


def _ways(tuning: Tuning) -> set[str]:
    return {rate.setting.way for rate in tuning.rates}


def _speed(tuning: Tuning, ways: set[str]) -> float:
    """Inputs a second in the best of some ways, without decoding."""
    rates = [rate for rate in tuning.rates if rate.setting.decoding_threads is None and rate.setting.way in ways]
    return max((rate.per_second for rate in rates), default=0.0)


def run_processes(spec: str, layout: Layout, seconds: float, variables: Mapping[str, str]) -> list[list[Tuning]]:
    """Measure a model version in so many processes at the same time.

    Args:
        spec: ``name:tag``.
        layout: how many, with how many threads.
        seconds: for each network, about.
        variables: of a worker's environment.

    Raises:
        UserError: the model cannot be loaded; see ``models.load``.
        JobError: a process died, or gave no sign of life.
    """
    threads, replicas = layout
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "shopvision.encoders.tuning", spec, str(replicas), str(seconds)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(replicas)
    ]
    try:
        for process in processes:
            if (line := _line_of(process)).strip() != READY:
                raise _failure(line, spec)
        for process in processes:
            assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
            process.stdin.write(f"{GO}\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
    except subprocess.TimeoutExpired:
        raise JobError(f"Measuring {spec} gave no sign of life for {PATIENCE_SECONDS:.0f} s: try again.") from None
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [_tunings(answer, spec) for answer in answers]


def _line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    return process.stdout.readline()


def _tunings(answer: str, spec: str) -> list[Tuning]:
    try:
        return [Tuning.model_validate(one) for one in json.loads(answer)]
    except ValueError:
        raise _failure(answer, spec) from None


def _failure(answer: str, spec: str) -> UserError | JobError:
    """Why a process did not measure: what it told, or that it died without a word."""
    try:
        return UserError(json.loads(answer)["error"])
    except (ValueError, TypeError, KeyError):
        return JobError(f"A process that measured {spec} died: is there enough memory for as many copies of the model?")
