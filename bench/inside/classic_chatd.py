"""`python -m bench.inside.classic_chatd`: chatd on classic queues."""

from __future__ import annotations

import sys

from bench.inside.classic import use_classic_queues

if __name__ == "__main__":
    use_classic_queues()
    from chatd.__main__ import main

    sys.exit(main())
