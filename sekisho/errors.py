"""The errors of the line.

Two families decide what happens next: a `TemporaryError` is tried again after its delay, a `PermanentError` is
not. `Refusal` is a PermanentError that is nobody's fault but the input's: the line says no, with reasons. Every
error carries what happened, where, and what to do about it, because a person reads it at night.
"""

from __future__ import annotations


def plain(text: str) -> str:
    """Return a text that is Unicode: half a surrogate pair, which strangers' files can hold, becomes a `?`.

    No document and no terminal takes one, and a refusal that cannot be written down would be no refusal.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


class SekishoError(Exception):
    """Base of all errors that are meant for people.

    Args:
        what: one sentence, what happened.
        where: file, URL, object or zone it happened at; may be empty.
        remedy: what the reader can do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = plain(what), plain(where), plain(remedy)
        super().__init__(self.what)

    def __str__(self) -> str:
        text = f"{self.what} [{self.where}]" if self.where else self.what
        return f"{text} Remedy: {self.remedy}" if self.remedy else text


class TemporaryError(SekishoError):
    """The world is not ready; the same call may succeed after `delay` seconds."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "", delay: float = 2.0) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.delay = delay


class PermanentError(SekishoError):
    """Trying again changes nothing."""


class Refusal(PermanentError):
    """The line's NO to an input: invalid, unsigned, forbidden, incomplete."""


class Held(PermanentError):
    """Not the input's to mend, and no fault of the line: somebody else acts first, and then it is tried by itself."""


class UsageError(SekishoError):
    """The command was used wrongly."""

    exit_code = 2


class LeaseLost(SekishoError):
    """Somebody else holds the target now; stop at once, do not retry."""


class VerificationError(Refusal):
    """A signature, digest, role, subject or predicate is not what it must be."""
