"""Files of pictures: what they hold beside pixels, and how they are written whole."""
