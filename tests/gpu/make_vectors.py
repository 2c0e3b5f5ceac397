"""Write vectors.json from the torch twin on the CPU: python tests/gpu/make_vectors.py"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "cases")]

import vectors  # noqa: E402


def main() -> None:
    found = {str(case): vectors.digests(case) for case in vectors.CASES}
    assert len(found) == len(vectors.CASES)
    vectors.FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(len(found), "cases")


if __name__ == "__main__":
    main()
