"""`python -m rvllm` is `rvllm`."""

import sys

from rvllm.cli import main

sys.exit(main())
