"""`python -m gateway`: the command line."""

from gateway.admin.cli import main

if __name__ == "__main__":
    main()
