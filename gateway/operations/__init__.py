"""What an operator can do, on opened services. The command line and the console call it."""
