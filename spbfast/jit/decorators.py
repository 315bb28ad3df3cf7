"""The one place that knows numba: decorators, intrinsics and the private compile cache.

Owns the only decorators of compiled code: `entry_kernel` (called from Python, kept on disk), `kernel`
(called from kernels) and `inline_kernel` (always inlined: for helpers on the page path, where handing
over the zone's arrays would cost more than their work); the latter two refuse calls from Python. It
also owns prefetching, bit scans and the cache directory. Every kernel is compiled with `_nrt=False`: numba
then counts no references to the arrays in the state tuples (a call costs nanoseconds, not a microsecond) and
refuses to allocate arrays or lists in a kernel. The option is undocumented; numba's version is bounded in
pyproject.toml and tests/test_jit.py pins the behaviour.

Numba's own disk cache does not notice a changed callee or constant in another file, so the
directory is named after a hash of all sources, the versions and the settings that change code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from spbfast.jit import byref as _byref
from spbfast.jit.kernelcache import cache_of, find_cache_dir
from spbfast.jit.linking import EntryCompiler, InnerCompiler
from spbfast.jit.sources import PACKAGE, hash_sources

F = TypeVar("F", bound=Callable[..., Any])

INTERPRETED = bool(config.DISABLE_JIT)
_CODE_VARIABLES = ("BOUNDSCHECK", "OPT", "DEBUGINFO", "CPU_NAME", "CPU_FEATURES", "LOOP_VECTORIZE")


def source_hash(root: Path | None = None) -> str:
    """Hash of everything that decides what the compiled kernels are: 16 hex digits."""
    digest = hash_sources(PACKAGE if root is None else root)
    digest.update(f"{numba.__version__} {llvmlite.__version__} {np.__version__}".encode())
    for name in _CODE_VARIABLES:
        digest.update(f"{name}={os.environ.get('NUMBA_' + name)}".encode())
    return digest.hexdigest()


def cache_dir() -> Path | None:
    """The cache directory for this source tree, or None (then nothing is cached)."""
    return find_cache_dir(source_hash())


CACHE_DIR = None if INTERPRETED else cache_dir()
if CACHE_DIR is not None:
    config.CACHE_DIR = str(CACHE_DIR)


def _plain_type(ty: Any) -> Any:
    """Type that an argument is compiled for: every signed number, constants included, is int64."""
    ty = types.unliteral(ty)
    if isinstance(ty, types.IntEnumMember):
        return types.int64
    return types.int64 if isinstance(ty, types.Integer) and ty.signed else ty


def _one_specialisation(dispatcher: Any) -> Any:
    """Let kernels that call `dispatcher` share one compiled version of it.

    Numba compiles a callee once more for every constant, enum member or narrower integer in a call, and
    with it all that it calls in turn.
    """
    if INTERPRETED:
        return dispatcher
    template = dispatcher.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return template(tuple(map(_plain_type, args)), {k: _plain_type(v) for k, v in kws.items()})

    dispatcher.get_call_template = get_call_template
    return dispatcher


def _refuse_python(dispatcher: Any) -> Any:
    """Let a kernel without a wrapper raise TypeError when Python calls it, where the process would crash."""
    if INTERPRETED:
        return dispatcher

    def add_overload(result: Any) -> None:
        # What is not entered in the dispatcher's own table is never jumped to from Python.
        dispatcher.overloads[tuple(result.signature.args)] = result

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise TypeError(f"{dispatcher.__name__} is called by kernels only; Python calls an entry_kernel")

    dispatcher.add_overload = add_overload
    dispatcher._compile_for_args = refuse
    return dispatcher


def _kept_on_disk(dispatcher: Any) -> Any:
    """Keep what is compiled of an entry on disk; its code holds its callees."""
    if not INTERPRETED:
        dispatcher._cache = cache_of(dispatcher.py_func, CACHE_DIR)
    return dispatcher


def _jit(*, entry: bool, forceinline: bool = False) -> Callable[[F], F]:
    decorate = numba.njit(
        nogil=True,
        _nrt=False,
        error_model="numpy",
        forceinline=forceinline,
        # Only what Python calls needs wrappers.
        no_cpython_wrapper=not entry,
        no_cfunc_wrapper=True,
        pipeline_class=EntryCompiler if entry else InnerCompiler,
    )
    guard = _kept_on_disk if entry else _refuse_python
    return lambda function: guard(_one_specialisation(decorate(function)))


kernel = _jit(entry=False)
inline_kernel = _jit(entry=False, forceinline=True)
entry_kernel = _jit(entry=True)


NT = TypeVar("NT", bound=type)


def by_reference(
    inner: Mapping[str, tuple[int | None, ...]] | None = None, strides: Mapping[str, int] | None = None
) -> Callable[[NT], NT]:
    """Class decorator: kernels get instances of this NamedTuple as one pointer.

    `inner` and `strides` say what its arrays' shapes have in common in all states (`byref.Shapes`).
    """

    def decorate(cls: NT) -> NT:
        if not INTERPRETED:
            _byref.register_reference(cls, _byref.Shapes(inner or {}, strides or {}))
        return cls

    return decorate


if INTERPRETED:

    def prefetch(array: np.ndarray, index: int) -> None:
        """Hint that `array[index]` is needed soon; nothing when interpreted."""

    def ctz(word: int) -> int:
        """Index of the lowest set bit of a 64-bit word that is not 0."""
        word = int(word) & 0xFFFF_FFFF_FFFF_FFFF
        return (word & -word).bit_length() - 1

    def bit_length(word: int) -> int:
        """Index of the highest set bit plus one; 0 for 0."""
        return (int(word) & 0xFFFF_FFFF_FFFF_FFFF).bit_length()

    def popcount(word: int) -> int:
        """Number of set bits of a 64-bit word."""
        return (int(word) & 0xFFFF_FFFF_FFFF_FFFF).bit_count()

    def read_cycles() -> int:
        """The processor's time-stamp counter; for profiles only, 0 when interpreted."""
        return 0

    def pick(items: tuple[Any, ...], i: int) -> Any:
        """Item number i of a tuple of equal types; i must be in range."""
        return items[i]

else:

    @intrinsic
    def prefetch(typingctx, array, index):  # type: ignore[no-untyped-def]
        """Hint that `array[index]` is needed soon (llvm.prefetch); the index is flat for more dimensions."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            from llvmlite import ir

            array_type = signature.args[0]
            struct = context.make_array(array_type)(context, builder, args[0])
            if array_type.ndim == 1:
                address = cgutils.get_item_pointer(context, builder, array_type, struct, [args[1]])
            else:
                address = builder.gep(struct.data, [args[1]])
            byte_pointer = ir.IntType(8).as_pointer()
            fn_type = ir.FunctionType(ir.VoidType(), [byte_pointer] + [ir.IntType(32)] * 3)
            fn = cgutils.get_or_insert_function(builder.module, fn_type, "llvm.prefetch.p0")
            word = ir.IntType(32)
            builder.call(fn, [builder.bitcast(address, byte_pointer), word(1), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(array, types.int64), codegen

    def _bit_intrinsic(emit):  # type: ignore[no-untyped-def]
        @intrinsic
        def scan(typingctx, word):  # type: ignore[no-untyped-def]
            def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
                return emit(builder, args[0])

            return types.int64(types.int64), codegen

        return scan

    def _emit_ctz(builder, word):  # type: ignore[no-untyped-def]
        from llvmlite import ir

        return builder.cttz(word, ir.IntType(1)(1))

    def _emit_bit_length(builder, word):  # type: ignore[no-untyped-def]
        from llvmlite import ir

        return builder.sub(ir.IntType(64)(64), builder.ctlz(word, ir.IntType(1)(0)))

    ctz = _bit_intrinsic(_emit_ctz)
    bit_length = _bit_intrinsic(_emit_bit_length)
    popcount = _bit_intrinsic(lambda builder, word: builder.ctpop(word))

    @intrinsic
    def pick(typingctx, items, i):  # type: ignore[no-untyped-def]
        """Item number i of a tuple of equal types; i must be in range. No branch, no exception."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            found = builder.extract_value(args[0], 0)
            for number in range(1, signature.args[0].count):
                here = builder.icmp_signed("==", args[1], args[1].type(number))
                found = builder.select(here, builder.extract_value(args[0], number), found)
            return found

        return items.dtype(items, types.int64), codegen

    @intrinsic
    def read_cycles(typingctx):  # type: ignore[no-untyped-def]
        """The processor's time-stamp counter; for profiles only: nothing may depend on it."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            from llvmlite import ir

            fn_type = ir.FunctionType(ir.IntType(64), [])
            fn = cgutils.get_or_insert_function(builder.module, fn_type, "llvm.readcyclecounter")
            return builder.call(fn, [])

        return types.int64(), codegen
