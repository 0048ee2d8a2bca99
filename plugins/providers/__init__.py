"""Outside providers of data."""
