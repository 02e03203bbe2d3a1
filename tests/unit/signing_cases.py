"""Signers that do not do what they should, for the tests of every stage that signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sekisho.keys import FileSigner, Role


@dataclass
class Down:
    """A signer whose key is somewhere else, and that does not do what it should."""

    real: FileSigner
    act: Callable[[bytes], bytes]

    @property
    def role(self) -> Role:
        return self.real.role

    @property
    def key_id(self) -> str:
        return self.real.key_id

    @property
    def public_key(self) -> str:
        return self.real.public_key

    def sign(self, data: bytes) -> bytes:
        return self.act(data)


def broken(_: bytes) -> bytes:
    raise ConnectionRefusedError("token s.SECRET was refused")
