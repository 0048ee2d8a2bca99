"""The OPA bridge: a Go module with a C interface, and its build. The only code here that is not Python."""
