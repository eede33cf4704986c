"""The path of a page: fetched, kept in the journal, parsed, committed to the spool, delivered to each sink."""
