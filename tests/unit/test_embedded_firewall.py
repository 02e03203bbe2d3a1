"""The rules that are rendered, and that nft takes them."""

import os
import shutil
import subprocess

import pytest

from sekisho.embedded.firewall import router_rules, zone_rules
from sekisho.zones import ARROWS, Arrow, Network


def test_each_arrow_is_one_rule_of_the_router() -> None:
    accepted = [line for line in router_rules().splitlines() if "ct state new accept" in line]
    assert len(accepted) == len(ARROWS)


def test_an_arrow_names_interfaces_addresses_and_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEKISHO_NETWORK", raising=False)
    rules = router_rules([Arrow(Network.STAGING, Network.OPS, (8090, (30000, 30010)), "test")])
    expected = (
        'iifname "sk-staging" oifname "sk-ops" ip saddr 10.77.40.10 ip daddr 10.77.30.10 '
        "tcp dport { 8090, 30000-30010 } ct state new accept"
    )
    assert expected in rules


def test_without_arrows_nothing_is_forwarded() -> None:
    rules = router_rules([])
    assert "ct state new accept" not in rules
    assert "hook forward priority -10; policy drop;" in rules


def test_only_production_pods_reach_the_external_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEKISHO_NETWORK", raising=False)
    rule = "ip saddr 10.77.51.0/24 ip daddr 10.77.50.20 tcp dport 5432 accept"
    assert [network for network in Network if rule in zone_rules(network)] == [Network.PRODUCTION]


def test_pods_never_reach_the_engine_or_the_zone_process_of_their_node() -> None:
    for network in Network:
        from_pods = [line for line in zone_rules(network, []).splitlines() if "saddr" in line and "dport" in line]
        assert not any(port in line for line in from_pods for port in ("4200", "8080", "8082", "5001"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="nft checks rules for root only")
@pytest.mark.parametrize("rules", [router_rules(), *(zone_rules(network) for network in Network)])
def test_nft_takes_the_rules(rules: str) -> None:
    done = subprocess.run(["nft", "--check", "-f", "-"], input=rules, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
