"""The stages of the line: each turns one immutable document into another. No Prefect in here."""
