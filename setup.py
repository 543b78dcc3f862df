"""What a message walks through, compiled to C by mypyc, when the build is asked for it: CHATD_NATIVE=1 pip install .

All else about the package is in setup.cfg; setuptools wants extensions here. The modules stay as they are, and without a
compiler they run as they are. docs/performance.md says what it gives.
"""

import os

from setuptools import setup

# Only what decides: nothing here awaits or yields. Compiled coroutines died of a segmentation fault when Redis was killed
# (mypyc 2.4: an exception that is raised again behind an await). tests/house/test_native.py holds the list to it.
NATIVE = [
    *(f"protocol/{name}.py" for name in (
        "codec", "connection", "envelope", "errors", "frames", "messages", "names", "states", "tuples", "wire",
    )),
    *(f"chatd/{name}.py" for name in (
        "brake", "effects", "feed", "full", "line", "pace", "postbox", "posts", "refusals", "session", "switchboard",
    )),
    *(f"brokerd/{name}.py" for name in ("counts", "route")),
    *(f"brokerd/links/{name}.py" for name in ("gaps", "sqlite_journal", "sqlite_ledger", "sqlite_moves", "sqlite_state")),
]  # fmt: skip


def _extensions():
    try:
        from mypyc.build import mypycify
    except ImportError:  # pip only asks what the build will need
        return []
    # in pip's own environment for a build no library is there; that all types are right is what `make check` is for
    return mypycify(["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", *NATIVE])


if __name__ == "__main__":
    if os.environ.get("CHATD_NATIVE", "0") not in ("", "0"):
        setup(setup_requires=["mypy>=1.15"], ext_modules=_extensions())
    else:
        setup()
