"""The command line. It talks to ops over HTTP and imports no stage, no flow and no Prefect."""
