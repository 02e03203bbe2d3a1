"""What each language needs: one module a language."""
