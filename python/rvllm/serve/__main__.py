"""`python -m rvllm.serve` is `rvllm serve`."""

import sys

from rvllm.cli import main

sys.exit(main(["serve", *sys.argv[1:]]))
