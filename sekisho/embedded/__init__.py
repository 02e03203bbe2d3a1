"""The embedded installation: every zone on one Linux machine, each in a network namespace of its own."""
