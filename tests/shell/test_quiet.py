"""What Pillow and libtiff print by themselves is heard outside quiet.pillow(), and not within."""

import subprocess
import sys

import pytest
from PIL import Image, features

SCRIPT = """
import logging, sys, warnings
from contextlib import nullcontext
from PIL import Image
from ckbd.shell import quiet

def noise():
    try:
        Image.open(sys.argv[1]).load()
    except OSError:
        pass
    logging.getLogger("PIL.TiffImagePlugin").error("a line of the log")
    warnings.warn_explicit("a warning", UserWarning, "PIL/TiffImagePlugin.py", 1, "PIL.TiffImagePlugin", {})
    warnings.warn_explicit("ours", UserWarning, "ckbd/codec/image.py", 1, "ckbd.codec.image", {})

for name, context in (("before", nullcontext()), ("within", quiet.pillow()), ("after", nullcontext())):
    print(f"-- {name}", file=sys.stderr, flush=True)
    with context:
        noise()
        assert (Image.MAX_IMAGE_PIXELS is None) == (name == "within")
"""


@pytest.mark.skipif(not (sys.platform == "linux" and features.check("libtiff")), reason="needs Linux and libtiff")
def test_libtiff_log_and_warnings(tmp_path, small_env):
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    strip = dict(Image.open(tmp_path / "a.tif").tag_v2)[273][0]
    data[strip : strip + 500] = bytes(500)
    (tmp_path / "a.tif").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "a.tif"], env=small_env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    parts = dict(part.split("\n", 1) for part in done.stderr.split("-- ")[1:])
    for name in ("before", "after"):
        assert all(one in parts[name] for one in ("tempfile.tif", "a line of the log", "a warning", "ours")), (
            done.stderr
        )
    assert parts["within"].splitlines()[0].endswith("UserWarning: ours")
    assert not any(one in parts["within"] for one in ("tempfile.tif", "a line of the log", "a warning"))
