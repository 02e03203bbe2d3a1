"""Orchestration on Prefect: which stages run, in what order, with what retries."""
