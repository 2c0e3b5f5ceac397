"""`make demo`: one photograph through the codec and back, a table of what happened, and a page to look at.

The photograph is one that scikit-image ships (Eileen Collins, NASA, public domain; not in the training data), or the
user's own.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import ckbd
from ckbd.codec import image
from ckbd.evaluation import evaluate, page
from ckbd.evaluation.rivals import jpeg_at_size

RIVALS = ("jpeg-420", "jpeg-444", "webp")  # on the page: those that are quick


def timed(work):
    """(result, milliseconds) of the best of three calls after one to warm up."""
    result, times = work(), []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return result, 1e3 * min(times)


def report(path: Path, codec: ckbd.Codec, picture: image.Picture, stem: str, qualities: list[float]) -> None:
    """The page of `ckbd eval --html` for one picture, by PSNR."""
    with tempfile.TemporaryDirectory() as folder:
        image.write(Path(folder, f"{stem}.png"), image.from_array(picture.rgb))
        result = evaluate.run(codec, folder, qualities, RIVALS, metrics=["psnr"])
        page.write(path, result, codec, folder, sorted(qualities)[len(qualities) // 2])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__)
    parser.add_argument("--image", help="a picture file (default: a photograph of scikit-image)")
    parser.add_argument("--out", default="demo", type=Path)
    parser.add_argument("--qualities", type=float, nargs="*", default=[20, 50, 80])
    args = parser.parse_args()
    if args.image:
        # JPEG is given as many bytes, and takes neither EXIF nor XMP along.
        picture, stem = image.strip(image.read(args.image)), Path(args.image).stem
    else:
        from skimage.data import astronaut

        picture, stem = image.from_array(astronaut()), "astronaut"
    args.out.mkdir(parents=True, exist_ok=True)
    codec = ckbd.load()
    pixels = picture.width * picture.height
    print(f"{stem}, {picture.width} x {picture.height}, model {codec.model_hash}\n")
    print("quality    bytes    bpp   PSNR dB  encode ms  decode ms  |  JPEG bytes  PSNR dB   gain dB")
    for quality in args.qualities:
        (stream,), encode_ms = timed(lambda q=quality: codec.encode([picture], q))
        (decoded,), decode_ms = timed(lambda s=stream: codec.decode_pictures([s]))
        psnr = image.psnr(picture.rgb, decoded.rgb)
        jpeg = jpeg_at_size(picture.rgb, len(stream))
        jpeg_rgb = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        jpeg_psnr = image.psnr(picture.rgb, jpeg_rgb)
        print(
            f"{quality:7g} {len(stream):8d} {8 * len(stream) / pixels:6.3f} {psnr:9.2f} {encode_ms:10.1f} "
            f"{decode_ms:10.1f}  |  {len(jpeg):10d} {jpeg_psnr:8.2f} {psnr - jpeg_psnr:+9.2f}"
        )
        (args.out / f"{stem}-q{quality:g}.ckbd").write_bytes(stream)
        image.write(args.out / f"{stem}-q{quality:g}.png", decoded)
        side = np.concatenate((picture.rgb, decoded.rgb, jpeg_rgb), axis=1)
        image.write(args.out / f"{stem}-q{quality:g}-original-ckbd-jpeg.png", image.from_array(side))
    print(f"\nStreams, decoded pictures and side-by-sides (original, ckbd, JPEG of equal bytes) are in {args.out}/")
    if args.qualities:
        report(args.out / "report.html", codec, picture, stem, args.qualities)
        print(f"Curves and a viewer to open in a browser: {args.out}/report.html")


if __name__ == "__main__":
    main()
