"""After `spbfast warmup` nothing is compiled any more: the list of entry kernels is complete."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spbfast.config.machine import MachineSpec
from spbfast.entries import COMPILED_AT_FIRST_USE, ENTRIES, compile_entries
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.state.world import MOST_WORLDS, padded
from tests.imports import MODULES, tree_of

ROOT = Path(__file__).parent.parent

COUNT = """
import sys
from spbfast.cli import main

def compiled():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("spbfast."):
            for kernel in vars(module).values():
                if getattr(kernel, "targetoptions", {}).get("no_cpython_wrapper") is False:
                    found[kernel.py_func.__qualname__] = sum(kernel.stats.cache_misses.values())
    return {name: n for name, n in found.items() if n}

try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("compiled", compiled())
"""
SEVERAL = ["machine.nodes=2", "machine.dma32=32MiB", "duration=20ms", "replicates=1"]


def test_every_entry_kernel_is_in_the_list() -> None:
    decorated = {
        (module, node.name)
        for module, path in MODULES.items()
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef) and "entry_kernel" in map(ast.unparse, node.decorator_list)
        if module.rpartition(".")[2] not in COMPILED_AT_FIRST_USE
    }
    listed = {kernel for entries in ENTRIES for kernel in entries.kernels}
    functions = {getattr(kernel, "py_func", kernel) for kernel in listed}
    assert {(f.__module__, f.__name__) for f in functions} == decorated


def test_each_group_calls_what_it_lists() -> None:
    said: list[str] = []
    assert compile_entries(said.append) > 0
    assert len(said) == len(ENTRIES)
    if INTERPRETED:
        return
    for entries in ENTRIES:
        for kernel in entries.kernels:
            assert kernel.overloads, kernel


def test_machines_of_every_size_share_two_sets_of_kernels() -> None:
    most = next(m.le for m in MachineSpec.model_fields["nodes"].metadata if hasattr(m, "le"))
    assert most + 1 == MOST_WORLDS
    assert padded((1,)) == (1,)
    assert {len(padded(tuple(range(n)))) for n in range(2, MOST_WORLDS + 1)} == {MOST_WORLDS}
    assert padded((1, 2, 3)) == (1, 2, 3, 1, 1)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled in the interpreted pass")
def test_after_warmup_a_run_on_several_zones_compiles_nothing() -> None:
    changes = [word for change in SEVERAL for word in ("--set", change)]
    golden = sorted(str(p) for p in (ROOT / "tests" / "golden").glob("*.npz"))[:60:6]
    for command in (
        ["warmup"],
        ["run", str(ROOT / "configs" / "tiny.yaml"), *changes],
        ["run", str(ROOT / "configs" / "tiny.yaml"), "--set", "duration=20ms"],
        ["verify", *golden],
    ):
        done = subprocess.run(
            [sys.executable, "-c", COUNT, *command],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if command != ["warmup"]:
            assert done.stdout.splitlines()[-1] == "compiled {}", command
