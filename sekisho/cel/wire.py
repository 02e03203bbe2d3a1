"""An expression's syntax tree on its way from the compiler and to the evaluator.

The compiler hands out `cel.expr.CheckedExpr` and the evaluator takes `cel.expr.ParsedExpr`, both as protocol buffers.
Their part that matters here is small and fixed (github.com/google/cel-spec, proto/cel/expr/checked.proto and
syntax.proto; encoding: protobuf.dev/programming-guides/encoding), so it is read by hand rather than with a library of
generated classes.
"""

# ruff: noqa: PLR2004 -- the numbers are those of the fields in the files above

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from sekisho.cel.syntax import (
    DYN,
    Call,
    Constant,
    Entry,
    Fold,
    ListOf,
    MapOf,
    Name,
    Node,
    Select,
    Tree,
    Type,
)

_ANY = "type.googleapis.com/cel.expr."


# -- reading -----------------------------------------------------------------------------------------------------------


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Return the fields of a message: number, and an int or bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
        elif wire == 2:
            size, place = _varint(data, place)
            yield number, data[place : place + size]
            place += size
        elif wire == 1:
            yield number, data[place : place + 8]
            place += 8
        else:
            raise ValueError(f"unexpected wire type {wire}")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _one(data: bytes) -> dict[int, Any]:
    return dict(_fields(data))


def read(data: bytes) -> Tree:
    """Read a checked expression as the compiler serializes it."""
    wrapper = _one(data)
    if wrapper[1].decode() != f"{_ANY}CheckedExpr":
        raise ValueError("this is not a checked expression")
    types: dict[int, Type] = {}
    names: dict[int, str] = {}
    overloads: dict[int, tuple[str, ...]] = {}
    root = None
    for number, value in _fields(wrapper[2]):
        if number == 4:
            root = _node(value)
        elif number == 3:
            entry = _one(value)
            types[entry.get(1, 0)] = _type(entry[2])
        elif number == 2:
            entry = _one(value)
            reference = list(_fields(entry[2]))
            names[entry.get(1, 0)] = next((text.decode() for key, text in reference if key == 1), "")
            overloads[entry.get(1, 0)] = tuple(text.decode() for key, text in reference if key == 3)
    if root is None:
        raise ValueError("this is not an expression")
    return Tree(root, types, {key: name for key, name in names.items() if name}, overloads)


_PRIMITIVES = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {1: "any", 2: "timestamp", 3: "duration"}


def _type(data: bytes) -> Type:
    found: tuple[int, Any] = next(_fields(data), (1, b""))
    number, value = found
    match number:
        case 3 | 4:
            return Type(_PRIMITIVES[value])
        case 5:
            return Type(_WELL_KNOWN[value])
        case 6:
            return Type("list", (_type(_one(value).get(1, b"")),))
        case 7:
            entry = _one(value)
            return Type("map", (_type(entry.get(1, b"")), _type(entry.get(2, b""))))
        case 9 | 10:
            return Type(value.decode())
        case 11:
            return Type("type", (_type(value),))
        case 14:
            parts = list(_fields(value))
            name = next(text.decode() for key, text in parts if key == 1)
            return Type(name, tuple(_type(part) for key, part in parts if key == 2))
        case 2:
            return Type("null")
        case _:
            return DYN


def _node(data: bytes) -> Node:
    found = list(_fields(data))
    id_ = next((value for number, value in found if number == 2), 0)
    kind, body = next((number, value) for number, value in found if number != 2)
    parts = list(_fields(body))
    one: dict[int, Any] = dict(parts)
    match kind:
        case 3:
            return _constant(id_, body, one)
        case 4:
            return Name(id_, one[1].decode())
        case 5:
            return Select(id_, _node(one[1]), one[2].decode(), bool(one.get(3, 0)))
        case 6:
            target = _node(one[1]) if 1 in one else None
            return Call(id_, one[2].decode(), target, tuple(_node(value) for number, value in parts if number == 3))
        case 7:
            optional = [place for number, value in parts if number == 2 for place in _packed(value)]
            return ListOf(id_, tuple(_node(value) for number, value in parts if number == 1), tuple(optional))
        case 8:
            entries = tuple(_entry(value) for number, value in parts if number == 2)
            return MapOf(id_, one.get(1, b"").decode(), entries)
        case 9:
            second = one.get(8, b"").decode()
            body_parts = [_node(one[number]) for number in (4, 5, 6, 7)]
            return Fold(id_, one[1].decode(), second, _node(one[2]), one[3].decode(), *body_parts)
        case _:
            raise ValueError(f"unexpected kind of expression {kind}")


def _packed(value: Any) -> list[int]:
    if isinstance(value, int):
        return [value]
    found, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        found.append(number)
    return found


def _constant(id_: int, raw: bytes, one: dict[int, Any]) -> Constant:
    (number, value) = next(iter(one.items()))
    match number:
        case 2:
            return Constant(id_, bool(value), raw)
        case 3:
            return Constant(id_, value - 2**64 if value >= 2**63 else value, raw)
        case 4:
            return Constant(id_, value, raw, unsigned=True)
        case 6:
            return Constant(id_, value.decode(), raw)
        case 7:
            return Constant(id_, value, raw)
        case _:
            return Constant(id_, None, raw)


def _entry(data: bytes) -> Entry:
    one = _one(data)
    key = _node(one[3]) if 3 in one else None
    return Entry(one.get(1, 0), one.get(2, b"").decode(), key, _node(one[4]), bool(one.get(5, 0)))


# -- writing -----------------------------------------------------------------------------------------------------------


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(data)) + data


def written(root: Node) -> bytes:
    """Return a tree as the evaluator reads it; the nodes are numbered anew."""
    return _field(1, f"{_ANY}ParsedExpr") + _field(2, _field(2, _Writer().node(root)))


class _Writer:
    """Writes nodes, each with a number of its own."""

    def __init__(self) -> None:
        self._ids = count(1)

    def node(self, one: Node) -> bytes:
        head = _field(2, next(self._ids))
        match one:
            case Constant():
                return head + _field(3, one.raw)
            case Name():
                return head + _field(4, _field(1, one.name))
            case Select():
                test = _field(3, 1) if one.test else b""
                return head + _field(5, self._part(1, one.operand) + _field(2, one.field) + test)
            case Call():
                target = b"" if one.target is None else self._part(1, one.target)
                return head + _field(6, target + _field(2, one.function) + self._parts(3, one.arguments))
            case ListOf():
                optional = _field(2, b"".join(map(_number, one.optional))) if one.optional else b""
                return head + _field(7, self._parts(1, one.elements) + optional)
            case MapOf():
                return head + _field(8, b"".join(_field(2, self._entry(part)) for part in one.entries))
            case Fold():
                return head + _field(9, self._fold(one))

    def _part(self, number: int, one: Node) -> bytes:
        return _field(number, self.node(one))

    def _parts(self, number: int, nodes: tuple[Node, ...]) -> bytes:
        return b"".join(self._part(number, one) for one in nodes)

    def _entry(self, one: Entry) -> bytes:
        head = _field(1, next(self._ids)) + (b"" if one.key is None else self._part(3, one.key))
        return head + self._part(4, one.value) + (_field(5, 1) if one.optional else b"")

    def _fold(self, one: Fold) -> bytes:
        found = _field(1, one.variable) + self._part(2, one.over) + _field(3, one.result_name)
        nodes = ((4, one.start), (5, one.condition), (6, one.step), (7, one.result))
        found += b"".join(self._part(number, part) for number, part in nodes)
        return found + (_field(8, one.second) if one.second else b"")
