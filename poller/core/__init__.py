"""The records, ports and errors that every other folder speaks of."""
