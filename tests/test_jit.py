"""The compile layer's contract: what the undocumented options of numba must keep doing for us."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import types

from spbfast.jit import decorators, kernelcache
from spbfast.jit.decorators import INTERPRETED, bit_length, ctz, popcount, source_hash
from spbfast.jit.sources import kernel_sources
from spbfast.model.loop.replay import run_events

PACKAGE = Path(decorators.__file__).parents[1]
compiled_only = pytest.mark.skipif(INTERPRETED, reason="there is no machine code in the interpreted pass")

PLANTED = """
import sys
import numpy as np
from typing import NamedTuple
from spbfast.jit.decorators import CACHE_DIR, by_reference, entry_kernel, inline_kernel, kernel

@kernel
def deep(a, i):
    return np.int64(a[i])

@inline_kernel
def inlined(a, i):
    return np.int64(a[i])

@entry_kernel
def read(a, i, how):
    if how == 0:
        return np.int64(a[i])
    return deep(a, i) if how == 1 else inlined(a, i)


@by_reference(inner={"table": (3,), "deep": (None, 2)}, strides={"even": 2})
class Shaped(NamedTuple):
    table: np.ndarray
    deep: np.ndarray
    even: np.ndarray

@kernel
def pick_from(shaped, i):
    return shaped.table[i, 2] + shaped.deep[i, 3, 1] + shaped.even[i]

@entry_kernel
def pick_shaped(shaped, i):
    return pick_from(shaped, i)

def state(inner=3, outer=4, stride=2):
    table = np.arange(5 * inner).reshape(5, inner)
    deep = 100 * np.arange(5 * outer * 2).reshape(5, outer, 2)
    return Shaped(table, deep, (10000 * np.arange(5 * stride)).reshape(5, stride)[:, 0])
"""


def run_python(folder: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `code` beside the module `planted` in a new process with its own cache directory."""
    (folder / "planted.py").write_text(PLANTED)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "SPBFAST_", "XDG_", "COV_"))}
    keep["PYTHONPATH"] = os.pathsep.join([str(folder), str(PACKAGE.parent)])
    command = [sys.executable, "-c", "from planted import *\n" + code]
    return subprocess.run(
        command,
        env={**keep, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def output_of(folder: Path, code: str, **variables: str) -> str:
    result = run_python(folder, code, **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.compiled
def test_hash_changes_with_any_source(tmp_path: Path) -> None:
    root = tmp_path / "spbfast"
    shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__", "templates", "static"))
    before = source_hash(root)
    assert before == source_hash(PACKAGE)
    seen = {before}
    for path in kernel_sources(root):
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        seen.add(source_hash(root))
        path.write_text(text)
    assert len(seen) == 1 + len(kernel_sources(root))
    assert source_hash(root) == before


def test_hash_changes_with_settings_that_change_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_hash()
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "7")
    assert source_hash() != before


def test_every_inner_kernel_is_hashed() -> None:
    """numba notices a changed entry kernel by itself, but not a changed callee or constant."""
    hashed = set(kernel_sources(PACKAGE))
    assert {
        PACKAGE / name for name in ("constants.py", "jit/decorators.py", "jit/linking.py", "jit/byref.py")
    } <= hashed
    for path in PACKAGE.rglob("*.py"):
        if path not in hashed:
            assert not re.search(r"^@(inline_)?kernel\b", path.read_text(), re.MULTILINE), path


@compiled_only
def test_python_cannot_call_an_inner_kernel(tmp_path: Path) -> None:
    code = """
a = np.arange(5)
for compiled_by_a_caller in (False, True):
    for inner in (deep, inlined):
        try:
            inner(a, 1)
        except TypeError as error:
            print(error)
    print(read(a, 2, 1) + read(a, 2, 2))
"""
    done = run_python(tmp_path, code)
    assert done.returncode == 0, done.stderr
    one = ["deep is called by kernels only; Python calls an entry_kernel"]
    one += [one[0].replace("deep", "inlined"), "4"]
    assert done.stdout.splitlines() == one + one


@compiled_only
@pytest.mark.slow
@pytest.mark.parametrize("index", [3, -1])
@pytest.mark.parametrize("how", [0, 1, 2], ids=["entry", "kernel", "inline kernel"])
def test_read_out_of_range_raises_under_boundscheck(tmp_path: Path, how: int, index: int) -> None:
    """Also from the end: kernels are compiled without the wrap-around of negative indices."""
    code = f"print(read(np.arange(3), 1, {how}))\nread(np.arange(3), {index}, {how})"
    result = run_python(tmp_path, code, NUMBA_BOUNDSCHECK="1", SPBFAST_CACHE_DIR=str(tmp_path / "cache"))
    assert result.stdout.strip() == "1"
    assert result.returncode != 0
    assert "IndexError" in result.stderr


@compiled_only
def test_kernels_refuse_to_allocate() -> None:
    import numba

    @decorators._jit(entry=True)
    def allocate(n):
        return np.zeros(n)[0]

    with pytest.raises(numba.core.errors.NumbaError, match="array passed into the function|NRT"):
        allocate(3)


@compiled_only
def test_inner_kernels_have_no_machine_code() -> None:
    import llvmlite.binding as llvm

    from spbfast.jit.linking import EntryLibrary, InnerLibrary

    def leaf_body(a, i):
        return a[i] + 1

    leaf = decorators._jit(entry=False)(leaf_body)

    @decorators._jit(entry=True)
    def root(a, i):
        return leaf(a, i) + leaf(a, i + 1)

    assert root(np.arange(5), 2) == 7
    libraries = [overload.library for overload in leaf.overloads.values()]
    assert [type(library) for library in libraries] == [InnerLibrary]
    assert libraries[0].get_pointer_to_function("any") == 0
    entry = next(iter(root.overloads.values())).library
    assert type(entry) is EntryLibrary
    # A callee that was not inlined lives on inside its entry, where nothing else can link to it.
    outside = [
        fn.name
        for fn in entry._final_module.functions
        if not fn.is_declaration and fn.linkage != llvm.Linkage.internal and "leaf_body" in fn.name
    ]
    assert outside == []


@compiled_only
def test_cached_entry_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    code = "print(read(np.arange(3), 2, 1), sum(read.stats.cache_hits.values()))"
    assert output_of(tmp_path, code, SPBFAST_CACHE_DIR=cache) == "2 0"
    assert output_of(tmp_path, code, SPBFAST_CACHE_DIR=cache) == "2 1"


@compiled_only
def test_cache_falls_back_when_home_is_not_writable(tmp_path: Path) -> None:
    code = "print(CACHE_DIR)"
    chosen = Path(output_of(tmp_path, code, HOME="/dev/null", TMPDIR=str(tmp_path)))
    assert chosen.parent.parent == tmp_path
    assert chosen.name == source_hash_without_settings()
    cache = tmp_path / "mine"
    assert Path(output_of(tmp_path, code, HOME="/dev/null", SPBFAST_CACHE_DIR=str(cache))).parent == cache


def source_hash_without_settings() -> str:
    """The hash as a process without NUMBA_ variables sees it."""
    kept = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith("NUMBA_")}
    try:
        return source_hash()
    finally:
        os.environ.update(kept)


def test_no_cache_when_nothing_is_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernelcache, "cache_candidates", lambda: [Path("/dev/null/nowhere")])
    assert decorators.cache_dir() is None


@compiled_only
def test_no_cache_still_runs(tmp_path: Path) -> None:
    code = "print(CACHE_DIR, read(np.arange(3), 2, 2))"
    assert output_of(tmp_path, code, SPBFAST_CACHE_DIR="/dev/null/nowhere") == "None 2"


@compiled_only
def test_entries_release_the_lock_and_count_no_references() -> None:
    options = run_events.targetoptions
    assert options["nogil"] is True
    assert options["_nrt"] is False


@pytest.mark.parametrize("word", [1, 2, 3, 1 << 40, (1 << 62) + 8, -1, -(1 << 63)])
def test_bit_scans(word: int) -> None:
    unsigned = word & 0xFFFF_FFFF_FFFF_FFFF
    if INTERPRETED:
        found = ctz(word), bit_length(word), popcount(word)
    else:

        @decorators._jit(entry=True)
        def scan(w):
            return ctz(w), bit_length(w), popcount(w)

        found = scan(np.int64(word))
    lowest = (unsigned & -unsigned).bit_length() - 1
    assert found == (lowest, unsigned.bit_length(), unsigned.bit_count())


@compiled_only
def test_declared_shapes_lead_to_the_right_elements(tmp_path: Path) -> None:
    code = (
        "for given in (state(), state(outer=7), state(stride=1)):\n"
        "    right = given.table[:, 2] + given.deep[:, 3, 1] + given.even\n"
        "    print([pick_shaped(given, i) for i in range(5)] == right.tolist())\n"
    )
    assert output_of(tmp_path, code, SPBFAST_CACHE_DIR=str(tmp_path / "cache")).split() == ["True"] * 3


@compiled_only
@pytest.mark.parametrize(("given", "message"), [("inner=4", "table must"), ("stride=3", "even must")])
def test_a_state_unlike_its_declaration_is_refused(tmp_path: Path, given: str, message: str) -> None:
    result = run_python(tmp_path, f"pick_shaped(state({given}), 1)", SPBFAST_CACHE_DIR=str(tmp_path))
    assert result.returncode != 0
    assert "TypeError" in result.stderr
    assert message in result.stderr


@compiled_only
def test_answers_are_worked_out_once_and_the_same():
    import operator

    from numba.core.registry import cpu_target
    from numba.core.types.functions import BaseFunction

    from spbfast.jit.kept_answers import answers_kept

    usual = BaseFunction.get_call_type
    context = cpu_target.typing_context
    context.refresh()
    add = context.resolve_value_type(operator.add)
    asked = []

    def counted(self, context, args, kws):
        asked.append(args)
        return usual(self, context, args, kws)

    BaseFunction.get_call_type = counted
    try:
        with answers_kept(), answers_kept():
            for args in [(types.int64, types.int64), (types.float64, types.int64)] * 3:
                assert add.get_call_type(context, args, {}) == usual(add, context, args, {})
        assert len(asked) == 2
        assert BaseFunction.get_call_type is counted
    finally:
        BaseFunction.get_call_type = usual


@compiled_only
def test_a_compilation_that_fails_leaves_numba_as_it_was():
    from numba.core import event
    from numba.core.errors import TypingError
    from numba.core.types.functions import BaseFunction
    from numba.np import arrayobj

    before = BaseFunction.get_call_type, event._registered, arrayobj.fix_integer_index

    @decorators.entry_kernel
    def wrong(a):
        return a + "x"

    with pytest.raises(TypingError):
        wrong(1)
    assert (BaseFunction.get_call_type, event._registered, arrayobj.fix_integer_index) == before
