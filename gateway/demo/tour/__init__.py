"""The guided tour, step by step."""
