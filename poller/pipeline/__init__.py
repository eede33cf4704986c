"""The way of a page: taken in, kept in the journal, read, committed to the spool, carried to each sink."""
