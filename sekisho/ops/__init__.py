"""Ops: the mailbox for signed decisions, and the ledger of what the zones did.

It decides nothing and holds no key: every receipt and decision in it carries the signature of who made it, and every
zone checks decisions for itself. A captured ops can delay a deployment; it cannot make one.
"""
