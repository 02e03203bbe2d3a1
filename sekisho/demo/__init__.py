"""The demonstration: the example workload travels the whole line, and every stage is shown as it happens."""
