"""These tests run in an environment of their own, which has CompressAI: `make compat`."""

from bench.rivals.compressai import import_compressai

import_compressai()
