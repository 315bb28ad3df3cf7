"""Whole-program compilation of kernels: numba types and lowers each, LLVM sees each entry's closure once.

Numba's own way optimises and emits machine code for every jitted function together with all that it
calls, so deep call chains cost kernels x depth: 98 s of CPU for the
allocator's replay loop alone, against 40 s with this module (same loaded machine).
Inner kernels keep their plain IR; an entry links the closure, makes everything but itself internal
(LLVM then also drops unused array fields from the argument lists of calls that stay calls), optimises
once and emits once. Kernels never index from the end, so the wrap-around of negative indices is left
out while they compile: a quarter of the instructions of a page event. Uses numba internals through its
documented `pipeline_class`; nothing else in the project may import this module but `decorators.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.np import arrayobj

from spbfast.jit.kept_answers import answers_kept, unheard


class _NoEnvironment:
    """Stands for an inner library's code generator where numba wants to set a Python environment."""

    @staticmethod
    def set_env(env_name: str, env: Any) -> None:
        """Inner kernels raise nothing and touch no Python object: they need none."""


class InnerLibrary(JITCodeLibrary):
    """IR of one inner kernel: function passes only, no machine code."""

    @property
    def codegen(self) -> Any:
        return _NoEnvironment

    def finalize(self) -> None:
        self._raise_if_finalized()
        # Calls are cheap, one pointer a tuple; left to itself LLVM inlines every function with a single
        # caller, and the event loop becomes one very large function.
        for fn in self._final_module.functions:
            is_own = not fn.is_declaration and fn.linkage == llvm.Linkage.external
            if is_own and not any(b"alwaysinline" in attributes for attributes in fn.attributes):
                fn.add_function_attribute("noinline")
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    def _get_module_for_linking(self) -> Any:
        return self._final_module


def closure(root: JITCodeLibrary) -> list[JITCodeLibrary]:
    """A library and all that it links, each once, callers first.

    LLVM's linker drops a shared definition that nothing has asked for yet, hence the order.
    """
    seen: dict[JITCodeLibrary, None] = {}

    def visit(library: JITCodeLibrary) -> None:
        if library not in seen:
            for callee in library._linking_libraries:
                visit(callee)
            seen[library] = None

    visit(root)
    return list(reversed(seen))


class EntryLibrary(JITCodeLibrary):
    """An entry kernel with its closure, optimised as one program."""

    def finalize(self) -> None:
        self._raise_if_finalized()
        own = {fn.name for fn in self._final_module.functions if not fn.is_declaration}
        for library in closure(self)[1:]:
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        for fn in self._final_module.functions:
            if fn.is_declaration:
                continue
            if fn.name not in own:
                fn.linkage = llvm.Linkage.internal
            else:
                # The wrapper fills the structures that references point to; inlined into it, their
                # invariant loads would meet those stores.
                fn.add_function_attribute("noinline")
        self._optimize_final_module()
        self._final_module.verify()
        self._finalize_final_module()

    def _optimize_final_module(self) -> None:
        # One full run: numba's cheap first run only serves reference-count pruning.
        manager, builder = self._codegen._module_pass_manager()
        manager.run(self._final_module, builder)


def _create_library(compiler: Compiler, kind: type[JITCodeLibrary]) -> None:
    state = compiler.state
    if state.library is None:
        codegen = state.targetctx.codegen()
        state.library = kind(codegen, state.func_id.func_qualname)
        state.library.enable_object_caching()


def _plain_index(context: Any, builder: Any, index_type: Any, index: Any, size: Any) -> Any:
    """An index as it is: what stands in for numba's `fix_integer_index`, which adds `size` below 0."""
    return context.cast(builder, index, index_type, types.intp if index_type.signed else types.uintp)


@contextmanager
def plain_indices() -> Iterator[None]:
    """Compile without negative indices; numba's global lock keeps other compilations out meanwhile."""
    usual = arrayobj.fix_integer_index
    arrayobj.fix_integer_index = _plain_index
    try:
        yield
    finally:
        arrayobj.fix_integer_index = usual


class _KernelCompiler(Compiler):
    """Numba's compiler for code that never indexes from the end."""

    def compile_extra(self, func: Any) -> Any:
        with plain_indices(), answers_kept(), unheard():
            return super().compile_extra(func)


class InnerCompiler(_KernelCompiler):
    """Numba's compiler with an `InnerLibrary`."""

    def define_pipelines(self) -> Any:
        _create_library(self, InnerLibrary)
        return super().define_pipelines()


class EntryCompiler(_KernelCompiler):
    """Numba's compiler with an `EntryLibrary`."""

    def define_pipelines(self) -> Any:
        _create_library(self, EntryLibrary)
        return super().define_pipelines()
