"""Rate and distortion on real bytes, beside other codecs."""
