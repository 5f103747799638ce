"""`python -m bellglass` is `bellglass`."""

from bellglass.cli import main

if __name__ == "__main__":
    main()
