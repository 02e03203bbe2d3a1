"""The syntax tree of an expression, like cel.expr.Expr (github.com/google/cel-spec, proto/cel/expr/syntax.proto)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Constant:
    """A literal."""

    id: int
    value: bool | int | float | str | bytes | None
    raw: bytes = field(repr=False)
    unsigned: bool = False


@dataclass(frozen=True)
class Name:
    """A variable."""

    id: int
    name: str


@dataclass(frozen=True)
class Select:
    """`operand.field`, or `has(operand.field)` as a test."""

    id: int
    operand: Node
    field: str
    test: bool


@dataclass(frozen=True)
class Call:
    """A function or an operator, on a target or not."""

    id: int
    function: str
    target: Node | None
    arguments: tuple[Node, ...]

    @property
    def operands(self) -> tuple[Node, ...]:
        """The target, if any, and the arguments."""
        return self.arguments if self.target is None else (self.target, *self.arguments)


@dataclass(frozen=True)
class ListOf:
    """A list literal; the places of optional elements apart."""

    id: int
    elements: tuple[Node, ...]
    optional: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """A key and its value in a map literal, or a field in a message literal."""

    id: int
    field: str
    key: Node | None
    value: Node
    optional: bool


@dataclass(frozen=True)
class MapOf:
    """A map literal, or a message literal."""

    id: int
    message: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Fold:
    """A comprehension, to which `all`, `exists`, `map`, `filter` and the like are expanded."""

    id: int
    variable: str
    second: str
    over: Node
    result_name: str
    start: Node
    condition: Node
    step: Node
    result: Node


Node = Constant | Name | Select | Call | ListOf | MapOf | Fold


@dataclass(frozen=True)
class Type:
    """A type: its name as CEL writes it, and its parameters."""

    name: str
    parameters: tuple[Type, ...] = ()

    def mentions(self, names: frozenset[str]) -> bool:
        """Tell whether the type, or a part of it, is one of these."""
        return self.name in names or any(part.mentions(names) for part in self.parameters)

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.parameters))
        return f"{self.name}({inner})" if inner else self.name


DYN = Type("dyn")
TRUE = Constant(0, value=True, raw=b"\x10\x01")
FALSE = Constant(0, value=False, raw=b"\x10\x00")


@dataclass(frozen=True)
class Tree:
    """A checked expression: its syntax, the type of each node, and what names and calls refer to."""

    root: Node
    types: dict[int, Type]
    names: dict[int, str]
    overloads: dict[int, tuple[str, ...]]

    def type_of(self, node: Node) -> Type:
        """Return the type of a node."""
        return self.types.get(node.id, DYN)


def constant_bytes(id_: int, value: bytes) -> Constant:
    """Return a literal of bytes."""
    size, head = len(value), b"\x3a"
    while size > 0x7F:  # noqa: PLR2004 - seven bits a byte
        head, size = head + bytes([size & 0x7F | 0x80]), size >> 7
    return Constant(id_, value, head + bytes([size]) + value)


def children(node: Node) -> tuple[Node, ...]:
    """Return what a node is made of."""
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.operands
        case ListOf():
            return node.elements
        case MapOf():
            pairs = [(entry.key, entry.value) for entry in node.entries]
            return tuple(part for pair in pairs for part in pair if part is not None)
        case Fold():
            return (node.over, node.start, node.condition, node.step, node.result)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """Return a node and all below it."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(children(found))


def changed(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return the tree with `change` applied to each node, from the leaves up."""
    match node:
        case Select():
            node = replace(node, operand=changed(node.operand, change))
        case Call():
            target = None if node.target is None else changed(node.target, change)
            node = replace(node, target=target, arguments=tuple(changed(part, change) for part in node.arguments))
        case ListOf():
            node = replace(node, elements=tuple(changed(part, change) for part in node.elements))
        case MapOf():
            node = replace(node, entries=tuple(_changed_entry(entry, change) for entry in node.entries))
        case Fold():
            over, start, condition, step, result = (changed(part, change) for part in children(node))
            node = replace(node, over=over, start=start, condition=condition, step=step, result=result)
        case _:
            pass
    return change(node)


def _changed_entry(entry: Entry, change: Callable[[Node], Node]) -> Entry:
    key = None if entry.key is None else changed(entry.key, change)
    return replace(entry, key=key, value=changed(entry.value, change))


def bound(name: str, value: Node, body: Node) -> Fold:
    """Return `body` with a local variable, which is worked out once, and only if it is looked at."""
    return Fold(0, "#unused", "", ListOf(0, (), ()), name, value, FALSE, Name(0, name), body)
