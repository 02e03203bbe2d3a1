"""What git answers a push, with the reason in plain words where git ran out of what it may take.

A push whose pack needs more memory than git may have ends in git's own words ("attempting to allocate 734003200 over
limit 629145600", "index-pack abnormal exit"). They go on to the pusher as they are, and before the end of the answer
comes what it means. Format: gitprotocol-pack(5), "Report Status", and gitprotocol-capabilities(5), "side-band-64k".
"""

from __future__ import annotations

_END = b"0000"
_MESSAGE = b"\x02"
_LONGEST = 64
"""Bytes of the longest words below."""
_MEMORY = (b"over limit", b"out of memory", b"cannot allocate memory")
_FAILED = (b"abnormal exit", b"missing necessary objects")
_WORDS = (
    "sekisho: refused: unpacking this push takes more memory than the receiver gives to one; nothing was stored",
    "sekisho: remedy: keep large files and data out of the repository, or push it commit by commit",
)


class Explained:
    """An answer on its way to the pusher, piece by piece.

    Args:
        pushed: whether it answers a push; any other goes on as it is.
    """

    def __init__(self, *, pushed: bool) -> None:
        self._pushed = pushed
        self._kept = b""
        """The zeros at its end, which may be the mark of it: nothing else waits, a pusher watches the lines come."""
        self._before = b""
        self._memory = self._failed = False

    def piece(self, data: bytes) -> bytes:
        """Take a piece of git's answer and return what can be sent."""
        if not self._pushed:
            return data
        # Hooks did not run where this is said, so nothing of a workload's can be taken for it.
        seen = (self._before + data).lower()
        self._memory |= any(word in seen for word in _MEMORY)
        self._failed |= any(word in seen for word in _FAILED)
        self._before = seen[-_LONGEST:]
        whole = self._kept + data
        zeros = len(whole) - len(whole.rstrip(b"0"))
        cut = len(whole) - min(zeros, len(_END))
        self._kept = whole[cut:]
        return whole[:cut]

    def end(self) -> bytes:
        """Return the rest, with the reason before the end."""
        if not (self._memory and self._failed and self._kept == _END):
            return self._kept
        return b"".join(_packet(words) for words in _WORDS) + _END


def _packet(words: str) -> bytes:
    text = _MESSAGE + words.encode() + b"\n"
    return b"%04x" % (len(text) + len(_END)) + text
