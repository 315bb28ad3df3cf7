"""Named tuples by reference: kernels get one pointer instead of hundreds of scalars.

Numba hands a tuple of arrays to a function field by field, seven machine words an array: with the
machine's fifty arrays every call site and every function costs hundreds of IR instructions; by reference
the replay loop compiled in 22 s instead of 45 s. A class registered here is stored once, at the border, and
passed as a pointer, like a `struct zone *`. Arrays of a state never change during a kernel, so loads of
their descriptors are marked invariant and LLVM keeps data pointers in registers across stores. What a class
declares of its arrays' shapes is part of the code: with lengths of inner dimensions and strides as constants
an element's address costs no multiplication, 2 to 5 % of a page event.

Uses numba's extension interface only; nothing but `decorators.py` may import this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from numba.core import cgutils, types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.core.typing.typeof import typeof_impl
from numba.extending import NativeValue, unbox


class Shapes(NamedTuple):
    """What a class declares of its arrays, by field.

    `inner` has the lengths of all dimensions but the first, None for one that differs from state to state;
    `strides` the distance of neighbours, in items, of one-dimensional arrays that are parts of a larger one.
    """

    inner: Mapping[str, tuple[int | None, ...]]
    strides: Mapping[str, int]


_DECLARED: dict[type, Shapes] = {}


class Reference(types.Type):
    """Type of a pointer to a named tuple."""

    def __init__(self, pointee: Any) -> None:
        self.pointee = pointee
        # Short names: a type's name is part of every symbol.
        content = hashlib.blake2b(repr(pointee).encode(), digest_size=4).hexdigest()
        super().__init__(name=f"{pointee.instance_class.__name__}_{content}")

    @property
    def key(self) -> Any:
        # The name says all: hashing the types of a state's fifty arrays at each look-up takes longer.
        return self.name


@register_default(Reference)
class _ReferenceModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Reference) -> None:
        pointee = dmm.lookup(fe_type.pointee).get_value_type()
        super().__init__(dmm, fe_type, pointee.as_pointer())


@infer_getattr
class _ReferenceAttributes(AttributeTemplate):
    key = Reference

    def generic_resolve(self, ref: Reference, attr: str) -> Any:
        if attr not in ref.pointee.fields:
            return None
        field = ref.pointee.types[ref.pointee.fields.index(attr)]
        return Reference(field) if isinstance(field, types.BaseNamedTuple) else field  # type: ignore[attr-defined]


@lower_getattr_generic(Reference)
def _load_field(context: Any, builder: Any, ref: Reference, value: Any, attr: str) -> Any:
    index = ref.pointee.fields.index(attr)
    pointer = cgutils.gep_inbounds(builder, value, 0, index)
    if isinstance(ref.pointee.types[index], types.BaseNamedTuple):  # type: ignore[attr-defined]
        return pointer
    load = builder.load(pointer)
    load.set_metadata("invariant.load", builder.module.add_metadata([]))
    return _with_shape(context, builder, ref.pointee, attr, load)


def _with_shape(context: Any, builder: Any, pointee: Any, attr: str, value: Any) -> Any:
    """A loaded array with the declared parts of its shape as constants; anything else as it is."""
    declared = _DECLARED[pointee.instance_class]
    array_type = pointee.types[pointee.fields.index(attr)]
    inner = declared.inner.get(attr, ())
    is_strided = attr in declared.strides and array_type.layout == "A"
    if not inner and not is_strided:
        return value
    array = context.make_array(array_type)(context, builder, value)
    if is_strided:
        stride = declared.strides[attr] * context.get_abi_sizeof(context.get_data_type(array_type.dtype))
        array.strides = cgutils.pack_array(builder, [context.get_constant(types.intp, stride)])
    lengths = cgutils.unpack_tuple(builder, array.shape)
    for i, length in enumerate(inner, 1):
        if length is not None:
            lengths[i] = context.get_constant(types.intp, length)
    array.shape = cgutils.pack_array(builder, lengths)
    return array._getvalue()


@unbox(Reference)
def _unbox_reference(typ: Reference, obj: Any, c: Any) -> NativeValue:
    native = c.unbox(typ.pointee, obj)
    pointer = cgutils.alloca_once_value(c.builder, native.value)
    return NativeValue(pointer, is_error=native.is_error, cleanup=native.cleanup)


def _check_shapes(value: Any, declared: Shapes) -> None:
    """Raise TypeError if an array is not as declared: compiled code would read beside it."""
    for attr, inner in declared.inner.items():
        shape = getattr(value, attr).shape
        fits = len(shape) == 1 + len(inner)
        if not fits or any(n not in (None, m) for n, m in zip(inner, shape[1:], strict=True)):
            raise TypeError(f"{type(value).__name__}.{attr} must have the inner shape {inner}, got {shape}")
    for attr, stride in declared.strides.items():
        array = getattr(value, attr)
        if not array.flags.c_contiguous and array.strides != (stride * array.itemsize,):
            raise TypeError(f"{type(value).__name__}.{attr} must have a stride of {stride} items or 1")


def register_reference(cls: type, shapes: Shapes) -> None:
    """Pass instances of a NamedTuple class to kernels by reference."""
    _DECLARED[cls] = shapes

    @typeof_impl.register(cls)
    def typeof_reference(value: Any, c: Any) -> Reference:
        _check_shapes(value, shapes)
        fields = tuple(typeof_impl(field, c) for field in value)
        plain = tuple(f.pointee if isinstance(f, Reference) else f for f in fields)
        return Reference(types.BaseTuple.from_types(plain, cls))  # type: ignore[attr-defined]
