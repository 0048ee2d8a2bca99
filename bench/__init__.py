"""Side-by-side measurements: `python -m bench`. See bench/README.md."""
