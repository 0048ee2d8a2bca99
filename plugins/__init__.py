"""Extension points: one file, one class, one schema. Plugins import gateway.core only and can only tighten."""
