"""How documents are used: typed collections with compare-and-set, and leases. The stores themselves are adapters."""
