"""`python -m led_fast` is `led-fast`."""

import sys

from led_fast.cli import main

sys.exit(main())
