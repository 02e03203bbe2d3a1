"""Receipts on their way to ops: written first, posted when ops answers, in order. Ops may be away for days."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Protocol

from flows.files import write_durably
from sekisho.canonical import digest_of, hex_of
from sekisho.errors import SekishoError, TemporaryError
from sekisho.keys import Signer
from sekisho.model import Receipt
from sekisho.receipts import receipt_statement
from sekisho.statements import sign_statement

_LOG = logging.getLogger(__name__)


class ReceiptSink(Protocol):
    """Where receipts go."""

    def post_receipt(self, bundle: bytes) -> object:
        """Hand over one signed receipt; safe to repeat."""
        ...


class Outbox:
    """The zone's signed receipts, kept until they are handed over."""

    def __init__(self, folder: Path, signer: Signer, zone: str) -> None:
        self._folder = folder
        self._signer = signer
        self._zone = zone
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, app: str, event: str, *, release: str = "", commit: str = "", message: str = "", **body: Any) -> None:
        """Sign a receipt and queue it.

        Args:
            app: the workload.
            event: what happened, one word.
            release: digest of the release it happened to.
            commit: the commit, when known.
            message: one sentence for people.
            body: further facts; never a credential.
        """
        receipt = Receipt(
            zone=self._zone, app=app, release=release, commit=commit, event=event, message=message,
            at=int(time.time()), body=body,
        )  # fmt: skip
        bundle = sign_statement(receipt_statement(receipt), self._signer)
        name = f"{time.time_ns():020d}-{hex_of(digest_of(bundle))[:16]}.json"
        write_durably(self._folder / name, bundle)

    def flush(self, sink: ReceiptSink) -> int:
        """Hand over what waits, in order; return how many went. Stops at the first that ops cannot take now.

        Raises:
            TemporaryError: ops cannot be reached.
        """
        sent = 0
        for path in sorted(self._folder.glob("*.json")):
            try:
                sink.post_receipt(path.read_bytes())
            except TemporaryError:
                raise
            except SekishoError as error:
                # Ops will never take this one; keep it for people, and do not hold up the others.
                _LOG.error("Ops refused receipt %s: %s", path.name, error)
                path.rename(path.with_suffix(".refused"))
                continue
            path.unlink()
            sent += 1
        return sent
