"""``python -m alnnode`` is the ``alnnode`` command."""

from alnnode.cli.app import main

if __name__ == "__main__":
    main()
