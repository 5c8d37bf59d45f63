"""Two real processes warm one network at the same moment: one compiles, both go by what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WARM = """
import json, sys, torch
from pathlib import Path
from torch import nn
from shopvision.encoders.compiled.inputs import Free, InputSpec
from shopvision.encoders.compiled.key import key_of
from shopvision.encoders.compiled.maker import CompiledPackages

torch.set_num_threads(1)
torch.manual_seed(0)
cpu, network = torch.device("cpu"), nn.Sequential(nn.Linear(64, 64), *[nn.Tanh() for _ in range(12)]).eval()
inputs = [InputSpec("float32", (Free("batch", 2, 4096), 64))]
key = key_of(network, inputs, part="test", device=cpu, dtype=torch.float32)
packages = CompiledPackages(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
refusal = packages.make(key, network, cpu)
rows = torch.linspace(-1, 1, 640).reshape(10, 64)
with torch.inference_mode():
    plain, library = network(rows), packages.load(key, cpu)
    found = library(rows) if library else plain
print(json.dumps({"refusal": refusal, "compiled": library is not None, "difference": float((found - plain).abs().max()),
                  "file": packages.place(key).stat().st_ino if library else None}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_that_warm_at_once_do_no_harm(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WARM, str(tmp_path)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate(timeout=500)[0].splitlines()[-1]) for process in processes]
    first, second = answers
    assert first == second  # one file, which both have loaded; or one reason why there is none
    assert first["compiled"] or "no faster" in first["refusal"]
    assert first["difference"] < 1e-5
    assert not list((tmp_path / "compiled").glob("*/"))  # nobody's half of the work is left
