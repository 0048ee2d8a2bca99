"""JOSE: JWS, proofs of possession, strict JSON."""
