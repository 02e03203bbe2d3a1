"""Sekisho: a delivery line across network-segregated Kubernetes clusters."""

__version__ = "0.1.0"
