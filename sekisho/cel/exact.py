"""What an expression may not do here, although it compiles, and how the rest is handed to the evaluator.

Refused is what would mean something else than in the API server:

1. What only the evaluator takes: literals of mixed types, message literals, and literals of times and patterns that
   are none, which the API server finds when it compiles.
2. Unsigned numbers, and lists of times in functions that are written in Python: they do not arrive there exactly.
   Times as text or numbers, and transformMap(): the evaluator writes them differently, or fails.
3. A value of one of Kubernetes' types where its type is lost (`dyn()`, `type()`, a choice between it and a field, a
   list that is searched): there the API server answers with an error, the evaluator with a value.
4. What depends on how Go shares a quantity (k8s.io/apimachinery changes one while it compares or adds): the sum of
   a variable, or whether a variable is an integer, and a comparison with `==` whose right side was computed.
5. `format()` with anything but `%s` and `%d`, and texts and whole numbers for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from sekisho.cel import addresses, formats, quantities, urls, versions
from sekisho.cel.conversions import CONVERSIONS
from sekisho.cel.opaque import NAMES, EvaluationError, Kind
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
    bound,
    changed,
    children,
    constant_bytes,
    walk,
)

EQUALS = {
    Kind.QUANTITY: quantities.equal,
    Kind.IP: addresses.equal_ips,
    Kind.CIDR: addresses.equal_cidrs,
    Kind.URL: urls.equal,
    Kind.SEMVER: versions.equal,
    Kind.FORMAT: formats.equal,
}
"""How two values of each type are compared."""

_FOLDED: dict[str, Callable[[str], bytearray]] = {
    id_: module.LIBRARY.functions[id_]
    for module, id_ in (
        (quantities, "string_to_quantity"),
        (addresses, "string_to_ip"),
        (addresses, "string_to_cidr"),
        (urls, "string_to_url"),
        (versions, "string_to_semver"),
    )
}
_KEEP = frozenset(
    {"_?_:_", "_[_]", "_[?_]", "_+_", "optional.of", "value", "hasValue", "or", "orValue", "@not_strictly_false"}
    | {"reverse", "slice", "size"}
)
"""Functions that hand a value on without looking at it."""
_IN_PLACE = frozenset({"add", "sub", "asInteger", "isInteger"})
_MAKES = frozenset({"quantity", "add", "sub"})
_PATTERNS = frozenset({"matches", "find", "findAll"})
_CONVERTS = frozenset({"int", "double", "bool", "string", "bytes", "duration", "timestamp"})
"""Functions that the API server tries on literals when it compiles."""
_NOT_HERE = {"cel.@mapInsert": "transformMap() and transformMapEntry() are not done here; make a list"}
_TIMES = frozenset({"timestamp", "duration"})
_PLAIN = frozenset({"string", "int", "bool"})
_DIRECTIVE = re.compile(r"%%|%(.?)", re.DOTALL)


class NotExactError(ValueError):
    """An expression that is not taken here; the text says why."""


def refuse(tree: Tree, *, ours: frozenset[str], pattern: Callable[[str], str], literal: Callable[[Node], str]) -> None:
    """Refuse an expression that would not mean the same in the API server.

    Args:
        tree: the checked expression.
        ours: functions that are written in Python.
        pattern: returns what is wrong with a regular expression, or nothing.
        literal: evaluates a call on a literal; returns what is wrong with it, or nothing.

    Raises:
        NotExactError: with the reason.
    """
    exempt = _within_format(tree)
    for node in walk(tree.root):
        if tree.type_of(node).mentions(frozenset({"uint"})):
            raise NotExactError("unsigned numbers are not taken here; no object holds one")
        match node:
            case ListOf() if node.id not in exempt:
                _same([_unwrapped(tree, node, place) for place in range(len(node.elements))])
            case MapOf():
                _map(tree, node)
            case Call():
                _call(tree, node, ours)
                _literal(tree, node, ours, pattern, literal)
            case Fold() if tree.type_of(node.over).name in NAMES:
                raise NotExactError("a value of this type cannot be gone through")
            case _:
                pass


def _within_format(tree: Tree) -> set[int]:
    calls = [node for node in walk(tree.root) if isinstance(node, Call) and node.function == "format"]
    return {below.id for call in calls for part in children(call) for below in walk(part)}


def _unwrapped(tree: Tree, node: ListOf, place: int) -> Type:
    found = tree.type_of(node.elements[place])
    return found.parameters[0] if place in node.optional and found.parameters else found


def _same(types: list[Type]) -> None:
    for found in types[1:]:
        if found != types[0]:
            raise NotExactError(f"expected type '{types[0]}' but found '{found}' in a literal")


def _map(tree: Tree, node: MapOf) -> None:
    if node.message:
        raise NotExactError(f"undeclared reference to '{node.message}': messages are not made here")
    _same([tree.type_of(entry.key) for entry in node.entries if entry.key is not None])
    _same([_value_type(tree, entry) for entry in node.entries])


def _value_type(tree: Tree, entry: Entry) -> Type:
    found = tree.type_of(entry.value)
    return found.parameters[0] if entry.optional and found.parameters else found


def _call(tree: Tree, node: Call, ours: frozenset[str]) -> None:
    types = [tree.type_of(part) for part in node.operands]
    ids = tree.overloads.get(node.id, ())
    python = bool(ours & set(ids))
    if node.function in _NOT_HERE:
        raise NotExactError(_NOT_HERE[node.function])
    if python and node.function != "string" and any(found.mentions(_TIMES) for found in types):
        raise NotExactError(f"'{node.function}' does not take times here; compare them one by one")
    if any(found.name in _TIMES for found in types):
        _time(tree, node, types)
    if node.function == "getMilliseconds" and types[0].name != "timestamp":
        raise NotExactError("getMilliseconds() is asked of a timestamp only; of a duration it is another number here")
    if node.function == "format":
        _format(tree, node)
    if node.function in _IN_PLACE and python:
        _in_place(node)
    if any(found.mentions(NAMES) for found in types) and not (python and _direct(types)):
        _opaque(tree, node, types)


def _time(tree: Tree, node: Call, types: list[Type]) -> None:
    if node.function == "string" or (node.function == "int" and types[0].name == "duration"):
        raise NotExactError(f"'{node.function}' of a {types[0]} is written differently here")
    if node.function == "dyn" or (node.function in _KEEP and (tree.type_of(node) == DYN or DYN in types)):
        raise NotExactError(f"'{node.function}' would lose the type of a time")


def _direct(types: list[Type]) -> bool:
    return not any(part.mentions(NAMES) for found in types for part in found.parameters)


def _opaque(tree: Tree, node: Call, types: list[Type]) -> None:
    """Refuse a call that would look into a value of one of Kubernetes' types."""
    if node.function in {"_==_", "_!=_"}:
        if types[0] != types[1] or types[0].name not in NAMES:
            raise NotExactError(f"'{types[0]}' and '{types[1]}' cannot be compared here")
        right = node.arguments[1]
        if types[0].name == Kind.QUANTITY.value and not (isinstance(right, Call) and right.function == "quantity"):
            raise NotExactError("compare quantities with compareTo(); on the right of == only quantity(...) is sure")
        return
    if node.function not in _KEEP and not (node.function == "string" and types[0].name in NAMES):
        raise NotExactError(f"'{node.function}' cannot be asked about a value of type '{_named(types)}'")
    mixed = [found for found in (*types, tree.type_of(node)) if found.mentions(frozenset({"dyn"}))]
    if mixed:
        raise NotExactError(f"'{node.function}' would lose the type of a '{_named(types)}'")


def _named(types: list[Type]) -> Type:
    return next(found for found in types if found.mentions(NAMES))


def _in_place(node: Call) -> None:
    target = node.target
    if not isinstance(target, Call) or target.function not in _MAKES:
        raise NotExactError(
            f"'{node.function}' is asked of a quantity that may be shared; write quantity(...).{node.function}(...)"
        )


def _literal(
    tree: Tree, node: Call, ours: frozenset[str], pattern: Callable[[str], str], literal: Callable[[Node], str]
) -> None:
    operands = node.operands
    problem = ""
    if node.function in _PATTERNS and len(operands) > 1:
        value = operands[1]
        if isinstance(value, Constant) and isinstance(value.value, str):
            problem = pattern(value.value)
    elif node.function in _CONVERTS and len(operands) == 1 and isinstance(operands[0], Constant):
        problem = literal(prepared(Tree(node, tree.types, tree.names, tree.overloads), ours=ours))
    if problem:
        raise NotExactError(f"invalid {node.function} argument: {problem}")


def _format(tree: Tree, node: Call) -> None:
    arguments = node.arguments[0]
    if not isinstance(node.target, Constant) or not isinstance(arguments, ListOf) or arguments.optional:
        raise NotExactError("format() is taken with a literal text and a literal list only")
    wanted = [match[1] for match in _DIRECTIVE.finditer(str(node.target.value)) if match[0] != "%%"]
    types = [tree.type_of(part).name for part in arguments.elements]
    if len(wanted) != len(types):
        raise NotExactError("format() has another number of values than of places for them")
    for directive, found in zip(wanted, types, strict=True):
        if not (directive == "s" and found in _PLAIN) and not (directive == "d" and found == "int"):
            raise NotExactError(f"format() takes %s for texts, bools and whole numbers, %d for these; not {found}")


# -- for the evaluator -------------------------------------------------------------------------------------------------


def prepared(tree: Tree, *, ours: frozenset[str]) -> Node:
    """Return the tree with each call that is answered in Python under a name of its own."""

    def change(node: Node) -> Node:
        match node:
            case Select() | Name() if (name := tree.names.get(node.id)) is not None and not _is_constant(node, name):
                return Name(node.id, name)
            case Call():
                return _prepared_call(tree, node, ours)
            case _:
                return node

    return changed(tree.root, change)


def _is_constant(node: Node, name: str) -> bool:
    return isinstance(node, Name) and node.name == name


def function_name(overload: str) -> str:
    """Return the name under which the evaluator knows a function that is written in Python."""
    return f"@{overload}"


def equals_name(kind: Kind) -> str:
    """Return the name of the comparison of a type."""
    return f"@equal {kind.value}"


def _prepared_call(tree: Tree, node: Call, ours: frozenset[str]) -> Node:
    types = [tree.types.get(part.id, DYN) for part in node.operands]
    if node.function in {"_==_", "_!=_"} and types[0].name in NAMES:
        equal = Call(node.id, equals_name(Kind(types[0].name)), None, node.operands)
        return equal if node.function == "_==_" else Call(node.id, "!_", None, (equal,))
    if node.function in CONVERSIONS and len(node.operands) == 1:
        return _prepared_conversion(node, types[0])
    ids = [id_ for id_ in tree.overloads.get(node.id, ()) if id_ in ours]
    if not ids:
        return node
    if node.function == "string":
        return _prepared_string(node, types[0])
    if ids[0].startswith("list_") and node.function in {"indexOf", "lastIndexOf"} and types[0] == DYN:
        return _prepared_index(node, ids)
    if (value := _folded(node, ids[0])) is not None:
        return value
    found = Call(node.id, function_name("|".join(ids) if _is_choice(ids) else ids[0]), None, node.operands)
    if formats.OPTIONAL & set(ids):
        return Call(node.id, "optional.ofNonZeroValue", None, (found,))
    return found


def _folded(node: Call, id_: str) -> Node | None:
    """Return a value that is written with a literal, `quantity("8Gi")`, worked out once for all evaluations."""
    argument = node.operands[0] if len(node.operands) == 1 else None
    if id_ not in _FOLDED or not isinstance(argument, Constant) or not isinstance(argument.value, str):
        return None
    try:
        return constant_bytes(node.id, bytes(_FOLDED[id_](argument.value)))
    except EvaluationError:
        return None  # an error where it is looked at, and only there


def _is_choice(ids: list[str]) -> bool:
    """Tell whether the value decides which function is meant: a quantity and a version are compared alike."""
    return len(ids) > 1 and ({id_.partition("_")[0] for id_ in ids} >= {"quantity", "semver"} or "_sum_" in ids[0])


NUMBER = "@number"
"""The name of the function that lets nothing but a number through."""


def conversion_name(function: str) -> str:
    """Return the name of the function that reads the text for a conversion."""
    return f"@text for {function}"


def _by_type(node: Call, type_: str, then: Callable[[Node], Node], otherwise: Callable[[Node], Node]) -> Node:
    """Return a call whose first operand is looked at before one of two is evaluated."""
    value = Name(0, "@value")
    is_type = Call(0, "_==_", None, (Call(0, "type", None, (value,)), Name(0, type_)))
    choice = Call(0, "_?_:_", None, (is_type, then(value), otherwise(value)))
    return replace(bound("@value", node.operands[0], choice), id=node.id)


def _prepared_conversion(node: Call, type_: Type) -> Node:
    def read(value: Node) -> Node:
        return replace(node, target=None, arguments=(Call(0, conversion_name(node.function), None, (value,)),))

    if type_.name == "string":
        return read(node.operands[0])
    if type_ != DYN:
        return node

    def other(value: Node) -> Node:
        if node.function in {"int", "double"}:
            value = Call(0, NUMBER, None, (value,))
        return replace(node, target=None, arguments=(value,))

    return _by_type(node, "string", read, other)


def _prepared_string(node: Call, type_: Type) -> Node:
    """A number with a fraction is printed as Go prints it; what is not known beforehand is looked at first."""
    if type_ != DYN:
        name = {"double": "double_to_string", Kind.IP.value: "ip_to_string", Kind.CIDR.value: "cidr_to_string"}
        found = name.get(type_.name)
        return node if found is None else Call(node.id, function_name(found), None, node.operands)

    def number(value: Node) -> Node:
        return Call(0, function_name("double_to_string"), None, (value,))

    return _by_type(node, "double", number, lambda value: replace(node, arguments=(value,)))


def _prepared_index(node: Call, ids: list[str]) -> Node:
    """`indexOf` of something: of a text, or of a list."""

    def listed(value: Node) -> Node:
        return Call(0, function_name(ids[0]), None, (value, *node.arguments))

    return _by_type(node, "string", lambda value: replace(node, target=value), listed)
