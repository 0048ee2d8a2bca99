"""`python -m gateway`: the command line."""

from gateway.cli.app import main

if __name__ == "__main__":
    main()
