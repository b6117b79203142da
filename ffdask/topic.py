"""The name under which all that is told of runs goes through a scheduler, as events of Dask's."""

TOPIC = "ffdask"
"""One for all runs: a scheduler keeps each topic that it ever heard of, and a few events of each."""
