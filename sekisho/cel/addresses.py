"""Addresses and networks: `ip('10.0.0.1')`, `cidr('10.0.0.0/8')`.

Source: k8s.io/apiserver pkg/cel/library/ip.go and cidr.go, which stand on Go's net/netip. Refused, as there: zones
(`fe80::1%eth0`), IPv4 addresses in IPv6 (`::ffff:1.2.3.4`) and leading zeros.
"""

# ruff: noqa: PLR2004 -- versions of the protocol

from __future__ import annotations

import ipaddress
import re
from typing import Any

from sekisho.cel.declared import BOOL, INT, STRING, Library, Overload
from sekisho.cel.opaque import EvaluationError, Kind, string, text_of, wrapped

_IP, _CIDR = Kind.IP.value, Kind.CIDR.value
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MULTICAST_4, _LOOPBACK_4 = ipaddress.ip_network("224.0.0.0/4"), ipaddress.ip_network("127.0.0.0/8")
_LINK_LOCAL_MULTICAST_4 = ipaddress.ip_network("224.0.0.0/24")
_MULTICAST_6 = ipaddress.ip_network("ff00::/8")
_LINK_LOCAL_4, _LINK_LOCAL_6 = ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10")
_ALL_ONES = ipaddress.IPv4Address("255.255.255.255")


def address(text: str) -> Address:
    """Read an address.

    Raises:
        EvaluationError: it is none, or has a zone, or is an IPv4 address in IPv6.
    """
    try:
        found = ipaddress.ip_address(text)
    except ValueError as error:
        raise EvaluationError(f'IP Address "{text}" parse error during conversion from string') from error
    if "%" in text:
        raise EvaluationError(f'IP address "{text}" with zone value is not allowed')
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        raise EvaluationError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return found


def _network(text: str) -> tuple[Address, int]:
    """Return address and length of a prefix; the address may have bits behind it."""
    before, slash, length = text.rpartition("/")
    if not slash or not re.fullmatch(r"0|[1-9][0-9]{0,2}", length, re.ASCII):
        raise EvaluationError("network address parse error during conversion from string")
    found = address(before)
    if int(length) > found.max_prefixlen:
        raise EvaluationError("network address parse error: prefix length out of range")
    return found, int(length)


def _is(read: Any) -> Any:
    def tells(value: Any) -> bool:
        text = string(value)
        try:
            read(text)
        except EvaluationError:
            return False
        return True

    return tells


def _get_ip(value: Any) -> Address:
    return ipaddress.ip_address(text_of(value, Kind.IP))


def _give_ip(found: Address) -> bytearray:
    return wrapped(Kind.IP, str(found))


def _get_cidr(value: Any) -> tuple[Address, int]:
    before, _, length = text_of(value, Kind.CIDR).rpartition("/")
    return ipaddress.ip_address(before), int(length)


def _give_cidr(found: Address, length: int) -> bytearray:
    return wrapped(Kind.CIDR, f"{found}/{length}")


def _masked(found: Address, length: int) -> int:
    behind = found.max_prefixlen - length
    return int(found) >> behind << behind


def _contains(one: Address, length: int, other: Address) -> bool:
    return one.version == other.version and _masked(one, length) == _masked(other, length)


def _contains_ip(value: Any, other: Any) -> bool:
    return _contains(*_get_cidr(value), address(other) if isinstance(other, str) else _get_ip(other))


def _contains_cidr(value: Any, other: Any) -> bool:
    one, length = _get_cidr(value)
    inner, longer = _network(other) if isinstance(other, str) else _get_cidr(other)
    return length <= longer and _contains(one, length, inner)


def _mask(value: Any) -> bytearray:
    one, length = _get_cidr(value)
    return _give_cidr(type(one)(_masked(one, length)), length)


def _canonical(value: Any) -> bool:
    text = string(value)
    return str(address(text)) == text


def _multicast(one: Address) -> bool:
    return one in (_MULTICAST_4 if one.version == 4 else _MULTICAST_6)


def _loopback(one: Address) -> bool:
    return one in _LOOPBACK_4 if isinstance(one, ipaddress.IPv4Address) else int(one) == 1


def _link_local(one: Address) -> bool:
    return one in (_LINK_LOCAL_4 if one.version == 4 else _LINK_LOCAL_6)


def _link_local_multicast(one: Address) -> bool:
    if isinstance(one, ipaddress.IPv4Address):
        return one in _LINK_LOCAL_MULTICAST_4
    return one in _MULTICAST_6 and one.packed[1] & 0x0F == 2


def _global(one: Address) -> bool:
    return not (int(one) == 0 or one == _ALL_ONES or _loopback(one) or _multicast(one) or _link_local(one))


def equal_ips(one: Any, other: Any) -> bool:
    """Tell whether two addresses are the same."""
    return _get_ip(one) == _get_ip(other)


def equal_cidrs(one: Any, other: Any) -> bool:
    """Tell whether two networks are written the same: bits behind the prefix count."""
    return _get_cidr(one) == _get_cidr(other)


def _member(id_: str, kind: str, result: str) -> tuple[Overload, ...]:
    return (Overload(id_, (kind,), result, member=True),)


LIBRARY = Library(
    "addresses",
    {
        "ip": (Overload("string_to_ip", (STRING,), _IP), Overload("cidr_ip", (_CIDR,), _IP, member=True)),
        "isIP": (Overload("is_ip", (STRING,), BOOL),),
        "ip.isCanonical": (Overload("ip_is_canonical", (STRING,), BOOL),),
        "family": _member("ip_family", _IP, INT),
        "isUnspecified": _member("ip_is_unspecified", _IP, BOOL),
        "isLoopback": _member("ip_is_loopback", _IP, BOOL),
        "isLinkLocalMulticast": _member("ip_is_link_local_multicast", _IP, BOOL),
        "isLinkLocalUnicast": _member("ip_is_link_local_unicast", _IP, BOOL),
        "isGlobalUnicast": _member("ip_is_global_unicast", _IP, BOOL),
        "cidr": (Overload("string_to_cidr", (STRING,), _CIDR),),
        "isCIDR": (Overload("is_cidr", (STRING,), BOOL),),
        "containsIP": (
            Overload("cidr_contains_ip_string", (_CIDR, STRING), BOOL, member=True),
            Overload("cidr_contains_ip_ip", (_CIDR, _IP), BOOL, member=True),
        ),
        "containsCIDR": (
            Overload("cidr_contains_cidr_string", (_CIDR, STRING), BOOL, member=True),
            Overload("cidr_contains_cidr", (_CIDR, _CIDR), BOOL, member=True),
        ),
        "prefixLength": _member("cidr_prefix_length", _CIDR, INT),
        "masked": _member("cidr_masked", _CIDR, _CIDR),
    },
    {
        "string_to_ip": lambda text: _give_ip(address(string(text))),
        "is_ip": _is(address),
        "ip_is_canonical": _canonical,
        "ip_family": lambda one: _get_ip(one).version,
        "ip_is_unspecified": lambda one: int(_get_ip(one)) == 0,
        "ip_is_loopback": lambda one: _loopback(_get_ip(one)),
        "ip_is_link_local_multicast": lambda one: _link_local_multicast(_get_ip(one)),
        "ip_is_link_local_unicast": lambda one: _link_local(_get_ip(one)),
        "ip_is_global_unicast": lambda one: _global(_get_ip(one)),
        "ip_to_string": lambda one: str(_get_ip(one)),
        "string_to_cidr": lambda text: _give_cidr(*_network(string(text))),
        "is_cidr": _is(_network),
        "cidr_ip": lambda one: _give_ip(_get_cidr(one)[0]),
        "cidr_contains_ip_ip": _contains_ip,
        "cidr_contains_cidr": _contains_cidr,
        "cidr_prefix_length": lambda one: _get_cidr(one)[1],
        "cidr_masked": _mask,
        "cidr_to_string": lambda one: text_of(one, Kind.CIDR),
    },
)
