"""Sources: each file or folder is one source, or a part that several sources share."""
