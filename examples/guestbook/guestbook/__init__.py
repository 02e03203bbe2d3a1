"""A guestbook: the example workload of Sekisho."""
