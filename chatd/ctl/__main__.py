"""python -m chatd.ctl"""

import sys

from chatd.ctl import main

sys.exit(main())
