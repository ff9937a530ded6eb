"""The program: the server starts it with its control socket as descriptor 3.

This file alone keeps to what every Python understands, so that an old one can say that it is.
"""

import os
import sys


def find_package():
    """Make the package importable as such, and leave its folder out of the script's path."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]
    sys.path.insert(0, os.path.dirname(here))
    import zarpa_worker  # noqa: F401

    del sys.path[0]


if __name__ == "__main__":
    if sys.version_info < (3, 8):
        sys.exit("Python 3.8 or newer is needed, and this is %s" % sys.version.split()[0])
    find_package()
    from zarpa_worker.life import main

    main()
