"""Keys and data at rest and on their way out."""
