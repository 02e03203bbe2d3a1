"""Ops on a real PostgreSQL, through its real HTTP face and the real clients."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from sekisho.clients import FeedClient, OpsClient
from sekisho.decisions import sign_decision, verify_decision
from sekisho.errors import PermanentError, Refusal, TemporaryError, VerificationError
from sekisho.feed import FeedStore, ProgressStore, create_feed_app
from sekisho.ledger import Entry, verify_entries
from sekisho.model import Change, Decision, DryRun, GateState, Offer, Plan, Receipt, SignedDecision
from sekisho.ops.app import create_ops_app
from sekisho.ops.bundles import Bundles, verified_release
from sekisho.ops.courier import READ, Courier
from sekisho.ops.history import Rollout, rollout
from sekisho.ops.schema import MIGRATIONS
from sekisho.ops.store import OpsStore, engine_for
from sekisho.receipts import receipt_statement, verify_receipt
from sekisho.releases import export_bundle, verify_release
from sekisho.statements import PAYLOAD_TYPE, RECEIPT, pae, sign_statement

from .pg_fixture import fresh_engine
from .serving import BROWSER, serve

COMMIT = "c" * 40


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def make_plan(number: int = 1, *, release: int = 1, zone: str = "production", app: str = "guestbook") -> Plan:
    return Plan(
        app=app, zone=zone, release=digest(release), summary=digest(900), commit=COMMIT, image="image",
        namespace=f"app-{app}",
        objects=({"kind": "Service", "metadata": {"name": app}, "spec": {"number": number}},),
    )  # fmt: skip


def make_receipt(
    event: str, *, release: int = 1, zone: str = "production", app: str = "guestbook", **body: Any
) -> Receipt:
    return Receipt(
        zone=zone,
        app=app,
        release=digest(release),
        commit=COMMIT,
        event=event,
        message=f"it is {event}",
        at=1000,
        body=body,
    )


def held(plan: Plan, *, event: str = "held", release: int = 1) -> Receipt:
    dry_run = DryRun(plan=plan.identity(), changes=(Change(object="Service/guestbook", action="create"),))
    gate = GateState(open=False, why="one approval is missing", who=("alice@example.com",))
    parts = {
        name: part.model_dump(mode="json") for name, part in {"plan": plan, "dry_run": dry_run, "gate": gate}.items()
    }
    return make_receipt(event, release=release, zone=plan.zone, **parts)


@pytest.fixture
def store() -> Iterator[OpsStore]:
    engine = fresh_engine()
    store = OpsStore(engine)
    assert store.migrate() == store.migrate() == len(MIGRATIONS)
    yield store
    engine.dispose()


@dataclass
class Keys:
    """An approver's key and somebody else's, with the allowed_signers that names the first only."""

    folder: Path

    @property
    def approver(self) -> Path:
        return self.folder / "approver"

    @property
    def stranger(self) -> Path:
        return self.folder / "stranger"

    @property
    def allowed(self) -> Path:
        return self.folder / "allowed_signers"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("approvers"))
    for name in ("approver", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@example.com", "-f", keys.folder / name]
        subprocess.run(command, check=True)
    keys.allowed.write_text(f"approver@example.com {(keys.folder / 'approver.pub').read_text()}")
    return keys


@dataclass
class Ops:
    """Ops as it serves."""

    store: OpsStore
    client: OpsClient
    url: str
    signers: Any

    def post(self, receipt: Receipt, key: str = "") -> dict[str, Any]:
        return self.client.post_receipt(sign_statement(receipt_statement(receipt), self.signers[key or receipt.zone]))


def no_bundle(wanted: str) -> bytes:
    raise TemporaryError("The build zone is away.", where=wanted)


@pytest.fixture
def ops(store: OpsStore, keys: Keys, tmp_path: Path, signers, trust) -> Iterator[Ops]:
    bundles = Bundles(tmp_path / "bundles", no_bundle, lambda data, wanted: verified_release(data, wanted, trust))
    app = create_ops_app(
        store,
        bundles,
        verify=lambda data: verify_receipt(data, trust),
        precheck=lambda signed: verify_decision(signed, keys.allowed),
    )
    with serve(app) as url, OpsClient(url) as client:
        yield Ops(store, client, url, signers)


# -- receipts ----------------------------------------------------------------------------------------------------


def test_a_receipt_is_kept_once_and_read_back(ops: Ops) -> None:
    receipt = make_receipt("received", seconds=0.5)
    first = ops.post(receipt)
    again = ops.post(receipt)
    assert (first["stored"], again["stored"], again["sequence"]) == (True, False, first["sequence"])
    assert ops.client.receipts(app="guestbook") == [
        {"sequence": 1, "digest": receipt.identity(), "receipt": receipt.model_dump(mode="json", exclude={"format"})}
    ]
    assert ops.client.verify_ledger()["ok"] is True


def test_a_receipt_without_canonical_form_is_refused(ops: Ops) -> None:
    body = {"number": 2**60}
    payload = json.dumps({"_type": "https://in-toto.io/Statement/v1", "predicateType": RECEIPT,
                          "subject": [{"digest": {"sha256": digest(1)[7:]}}],
                          "predicate": make_receipt("healthy", **body).model_dump(mode="json")}).encode()  # fmt: skip
    bundle = json.loads(sign_statement(receipt_statement(make_receipt("healthy")), ops.signers["production"]))
    signature = ops.signers["production"].sign(pae(PAYLOAD_TYPE, payload))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
    with pytest.raises(Refusal):
        ops.client.post_receipt(json.dumps(bundle).encode())
    assert ops.client.receipts() == []


@pytest.mark.parametrize("key", ["staging", "verifier", "stranger"])
def test_a_receipt_of_another_key_than_its_zones_is_refused(ops: Ops, key: str) -> None:
    with pytest.raises(VerificationError):
        ops.post(make_receipt("healthy"), key)
    assert ops.client.receipts() == []


def test_receipts_are_filtered_and_read_on(ops: Ops) -> None:
    for number, event in enumerate(("received", "planned", "healthy")):
        ops.post(make_receipt(event, release=number))
    ops.post(make_receipt("healthy", zone="staging", app="other"))
    assert [item["sequence"] for item in ops.client.receipts(event="healthy")] == [3, 4]
    assert [item["sequence"] for item in ops.client.receipts(app="guestbook", after=1)] == [2, 3]
    assert [item["sequence"] for item in ops.client.receipts(release=digest(1))] == [2, 4]
    assert [item["sequence"] for item in ops.client.receipts(zone="staging", commit=COMMIT)] == [4]


def test_a_long_poll_for_receipts_ends_when_one_comes(ops: Ops) -> None:
    found: list[list[dict[str, Any]]] = []
    reader = threading.Thread(target=lambda: found.append(ops.client.receipts(after=0, wait=20)))
    reader.start()
    ops.post(make_receipt("received"))
    reader.join(10)
    assert [item["sequence"] for item in found[0]] == [1]


def test_what_postgresql_cannot_hold_is_kept_in_the_ledger_alone(ops: Ops) -> None:
    receipt = make_receipt("failed", log="a\x00b").model_copy(update={"message": "a\x00b"})
    ops.post(receipt)
    assert ops.client.receipts()[0]["receipt"]["message"] == "a\ufffdb"
    assert ops.client.receipts()[0]["receipt"]["body"] == {"log": "a\x00b"}
    assert ops.client.verify_ledger()["ok"] is True


# -- plans -------------------------------------------------------------------------------------------------------


def test_a_plan_is_shown_with_the_digest_that_the_zone_computed(ops: Ops) -> None:
    plan = make_plan()
    ops.post(held(plan))
    shown = ops.client.plan(plan.identity())
    assert Plan.parse(json.dumps(shown["plan"])).identity() == plan.identity() == shown["digest"]
    assert (shown["state"], shown["gate"]["who"], shown["dry_run"]["plan"]) == (
        "held",
        ["alice@example.com"],
        plan.identity(),
    )
    assert [item["digest"] for item in ops.client.plans(app="guestbook", zone="production", state="held")] == [
        plan.identity()
    ]
    assert [item["digest"] for item in ops.client.plans(prefix=plan.identity()[:20])] == [plan.identity()]
    assert ops.client.plans(prefix="sha256:" + "f" * 10) == ops.client.plans(zone="staging") == []


def test_a_plan_follows_what_its_zone_says(ops: Ops) -> None:
    first, second = make_plan(1), make_plan(2)
    ops.post(held(first, event="planned"))
    ops.post(held(second))
    states = [ops.client.plan(plan.identity())["state"] for plan in (first, second)]
    assert states == ["superseded", "held"]
    gate = GateState(open=True, why="alice approved").model_dump(mode="json")
    ops.post(make_receipt("opened", plan=second.identity(), gate=gate))
    assert ops.client.plan(second.identity())["gate"]["open"] is True
    ops.post(make_receipt("healthy", plan=second.identity()))
    ops.post(make_receipt("drift", plan=second.identity()))
    assert ops.client.plan(second.identity())["state"] == "healthy"
    ops.post(held(make_plan(3)))
    assert ops.client.plan(second.identity())["state"] == "healthy"


def test_another_zone_cannot_speak_about_a_plan(ops: Ops) -> None:
    plan = make_plan()
    ops.post(held(plan))
    ops.post(make_receipt("rejected", zone="staging", plan=plan.identity()))
    assert ops.client.plan(plan.identity())["state"] == "held"
    with pytest.raises(Refusal, match="not of the zone"):
        ops.post(held(plan).model_copy(update={"zone": "staging"}))


@pytest.mark.parametrize(
    "body", [{"plan": {}}, {"plan": digest(1), "gate": {"open": "x"}}, {"deployment": {"plan": 5}}, {"plan": 5}]
)
def test_a_receipt_with_a_malformed_plan_is_refused_whole(ops: Ops, body: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        ops.post(make_receipt("held", **body))
    assert ops.client.receipts() == []


# -- decisions ---------------------------------------------------------------------------------------------------


def decide(keys: Keys, **fields: Any) -> SignedDecision:
    key = fields.pop("key", keys.approver)
    given = {
        "kind": "approve",
        "zone": "production",
        "app": "guestbook",
        "subject": digest(5),
        "principal": "approver@example.com",
    }
    return sign_decision(Decision(**{**given, "issued_at": 1, "nonce": "0" * 32, **fields}), key)


def test_a_decision_waits_in_its_zones_mailbox(ops: Ops, keys: Keys) -> None:
    signed = decide(keys)
    answer = ops.client.post_decision(signed)
    assert (answer["stored"], answer["checked"], answer["digest"]) == (True, True, signed.decision.identity())
    assert ops.client.post_decision(signed)["stored"] is False
    assert ops.client.decisions("production") == ((answer["sequence"], signed),)
    assert ops.client.decisions("staging") == ops.client.decisions("production", after=answer["sequence"]) == ()
    assert verify_decision(ops.client.decisions("production")[0][1], keys.allowed) == "approver@example.com"


def test_a_decision_of_a_strangers_key_is_refused_at_once(ops: Ops, keys: Keys) -> None:
    with pytest.raises(VerificationError, match="nobody's"):
        ops.client.post_decision(decide(keys, key=keys.stranger))
    signed = decide(keys)
    moved = signed.model_copy(update={"decision": signed.decision.model_copy(update={"subject": digest(6)})})
    with pytest.raises(VerificationError):
        ops.client.post_decision(moved)
    assert ops.client.decisions("production") == ()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'{"decision": {}, "signature": ""}', b"[" * 60_000, b"x" * 70_000]
)
def test_what_is_no_decision_is_refused_in_words(ops: Ops, body: bytes) -> None:
    answer = BROWSER.post(f"{ops.url}/decisions", content=body)
    assert answer.status_code in (413, 422)
    assert answer.json()["what"]


def test_a_decision_without_canonical_form_is_refused(ops: Ops, keys: Keys) -> None:
    raw = json.loads(decide(keys).canonical())
    raw["decision"]["reason"] = "\ud800"
    answer = BROWSER.post(f"{ops.url}/decisions", content=json.dumps(raw))
    assert answer.status_code == 422


def test_decisions_and_receipts_share_one_chain(ops: Ops, keys: Keys) -> None:
    ops.post(make_receipt("received"))
    ops.client.post_decision(decide(keys))
    ops.post(make_receipt("healthy"))
    report = ops.client.verify_ledger()
    assert (report["ok"], report["entries"]) == (True, 3)
    assert BROWSER.get(f"{ops.url}/healthz").json() == {"ok": True, "entries": 3}


def test_many_at_once_make_one_unbroken_chain(ops: Ops) -> None:
    receipts = [make_receipt("received", release=number) for number in range(24)]
    workers = [
        threading.Thread(target=lambda part: [ops.post(item) for item in part], args=(receipts[n::4],))
        for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert ops.client.verify_ledger() == {**ops.client.verify_ledger(), "ok": True, "entries": 24}


def test_the_ledger_can_be_checked_from_a_copy(ops: Ops, trust) -> None:
    ops.post(make_receipt("received"))
    ops.post(held(make_plan()))
    engine = ops.store._engine
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT seq, kind, digest, prev_hash, document, hash FROM ledger ORDER BY seq"))
        copy = [Entry(*row) for row in rows]
    assert verify_entries(copy).ok
    assert [verify_receipt(entry.content.encode(), trust).event for entry in copy] == ["received", "held"]


# -- what ran ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], Rollout("", "", ())),
        ([("healthy", "a")], Rollout("a", "", ("a",))),
        ([("healthy", "a"), ("healthy", "b")], Rollout("b", "a", ("b", "a"))),
        ([("healthy", "a"), ("healthy", "b"), ("failed", "c"), ("rolled-back", "c")], Rollout("b", "a", ("b", "a"))),
        ([("healthy", "a"), ("healthy", "b"), ("healthy", "a")], Rollout("a", "", ("a", "b"))),
        ([("healthy", "a"), ("healthy", "b"), ("failed", "b")], Rollout("a", "", ("b", "a"))),
        ([("healthy", "a"), ("healthy", "a")], Rollout("a", "", ("a",))),
        ([("healthy", "")], Rollout("", "", ())),
    ],
)
def test_what_runs_and_what_one_goes_back_to(events: list[tuple[str, str]], expected: Rollout) -> None:
    assert rollout(events) == expected


def test_releases_and_apps_show_every_zone(ops: Ops) -> None:
    ops.store.record_offers(
        (Offer(sequence=1, app="guestbook", release=digest(1), summary=digest(9), commit=COMMIT),), READ
    )
    ops.post(make_receipt("healthy", zone="staging"))
    ops.post(make_receipt("held"))
    ops.post(make_receipt("drift"))
    ops.post(make_receipt("healthy", release=2))
    first, second = sorted(ops.client.releases("guestbook"), key=lambda item: item["digest"])
    assert (first["digest"], {zone: item["state"] for zone, item in first["zones"].items()}) == (
        digest(1), {"staging": "healthy", "production": "held"}
    )  # fmt: skip
    assert second["digest"] == digest(2)
    assert ops.client.releases("other") == []
    assert ops.client.release(digest(1))["release"] is None
    with pytest.raises(Refusal, match="No such release"):
        ops.client.release(digest(7))
    with pytest.raises(TemporaryError):
        ops.client.bundle(digest(1))
    assert ops.client.apps() == [
        {
            "app": "guestbook",
            "zones": {
                "staging": {"running": digest(1), "previous": "", "healthy": [digest(1)]},
                "production": {"running": digest(2), "previous": "", "healthy": [digest(2)]},
            },
        }
    ]


def test_a_page_of_releases_holds_the_newest_each_once(ops: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sekisho.ops.store.PAGE", 3)
    ops.store.record_offers(
        tuple(
            Offer(sequence=number, app="guestbook", release=digest(number), summary=digest(9), commit=COMMIT)
            for number in range(1, 6)
        ),
        READ,
    )
    for number in range(1, 6):
        ops.post(make_receipt("healthy", zone="staging", release=number))
    found = ops.client.releases()
    assert [item["digest"] for item in found] == [digest(5), digest(4), digest(3)]
    assert all(item["zones"]["staging"]["state"] == "healthy" for item in found)
    assert [item["digest"] for item in ops.client.releases("guestbook", digest(1))] == [digest(1)]

    ops.post(make_receipt("held", release=7))  # the zone was quicker than the feed
    ops.post(make_receipt("healthy", zone="staging", release=7))
    found = ops.client.releases()
    assert [item["digest"] for item in found] == [digest(7), digest(5), digest(4)]
    assert found[0]["zones"].keys() == {"staging", "production"}


@pytest.mark.parametrize(
    "path",
    [
        "/decisions",
        "/decisions?zone=../x",
        "/receipts?app=A",
        "/receipts?unknown=1",
        "/receipts?wait=99",
        "/plans?prefix=%25",
        "/plans/x",
        "/releases/x",
        "/releases?app='",
        "/apps/A",
    ],
)
def test_malformed_questions_are_answered_in_words(ops: Ops, path: str) -> None:
    answer = BROWSER.get(ops.url + path)
    assert answer.status_code == 400
    assert set(answer.json()) == {"what", "where", "remedy"}


# -- bundles and the courier ---------------------------------------------------------------------------------------


def test_only_bundles_that_verify_are_kept(line, trust, tmp_path: Path) -> None:
    offer = line.offer("ops-bundle")
    good = export_bundle(verify_release(line.registry, offer, trust)).canonical()
    served = [good.replace(b'"', b"'"), good, b"never asked for"]
    bundles = Bundles(tmp_path, lambda _: served.pop(0), lambda data, wanted: verified_release(data, wanted, trust))
    assert bundles.get(offer.release) != good
    assert list(tmp_path.iterdir()) == []
    assert bundles.get(offer.release) == bundles.get(offer.release) == good
    release = bundles.release(offer.release)
    assert release is not None
    assert release["app"] == "ops-bundle"
    with pytest.raises(VerificationError, match="another release"):
        verified_release(good, digest(1), trust)


def test_the_courier_carries_news_both_ways_and_goes_on_where_it_stood(ops: Ops, tmp_path: Path, trust) -> None:
    feed_store, progress = FeedStore(tmp_path / "feed"), ProgressStore(tmp_path / "progress")
    for number in (1, 2):
        feed_store.append(app="guestbook", release=digest(number), summary=digest(9), commit=COMMIT)
    ops.post(make_receipt("received"))
    ops.post(held(make_plan()))
    ops.post(make_receipt("healthy"))
    app = create_feed_app(
        feed_store, lambda _: None, progress=progress, verify=lambda data: verify_receipt(data, trust)
    )

    async def errands(url: str) -> tuple[int, int, int]:
        courier = Courier(ops.store, FeedClient(url))
        return await courier.read(0), await courier.read(0), await courier.tell(0) + await courier.tell(0)

    with serve(app) as url:
        assert asyncio.run(errands(url)) == (2, 0, 2)
        feed_store.append(app="guestbook", release=digest(3), summary=digest(9), commit=COMMIT)
        assert asyncio.run(errands(url)) == (1, 0, 0)
    told = progress.of("guestbook", COMMIT)
    assert [item.event for item in told] == ["received", "healthy"]
    assert [item["sequence"] for item in ops.client.releases()] == [3, 2, 1]


def test_a_feed_that_began_anew_is_read_from_its_beginning(store: OpsStore, tmp_path: Path) -> None:
    feed_store = FeedStore(tmp_path / "feed")
    feed_store.append(app="guestbook", release=digest(1), summary=digest(9), commit=COMMIT)
    store.set_cursor(READ, 40)

    async def errands(url: str) -> list[int]:
        courier = Courier(store, FeedClient(url))
        return [await courier.read(0), await courier.read(0)]

    with serve(create_feed_app(feed_store, lambda _: None)) as url:
        assert asyncio.run(errands(url)) == [0, 1]


def test_a_build_zone_that_is_away_loses_nothing(ops: Ops) -> None:
    ops.post(make_receipt("received"))
    courier = Courier(ops.store, FeedClient("http://127.0.0.1:1"))
    for errand in (courier.read, courier.tell):
        with pytest.raises(TemporaryError):
            asyncio.run(errand(0))
    assert ops.store.cursor("progress:build") == 0


# -- the database --------------------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_temporary() -> None:
    with pytest.raises(TemporaryError) as caught:
        OpsStore(engine_for("127.0.0.1", 1, "secret-password")).migrate()
    assert "secret-password" not in str(caught.value)


def test_a_database_of_a_later_version_is_left_alone(store: OpsStore) -> None:
    with store._engine.begin() as connection:
        connection.execute(text("INSERT INTO schema_version VALUES (999)"))
    with pytest.raises(PermanentError, match="schema 999"):
        store.migrate()
