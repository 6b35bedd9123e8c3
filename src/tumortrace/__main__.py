"""`python -m tumortrace`: the command line, for an environment whose programs are not on the path."""

from tumortrace.cli.main import main

if __name__ == "__main__":
    main()
