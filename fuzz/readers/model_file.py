"""Model files taken apart and put together: a length, a header in JSON, the tensors' bytes."""

import json
import struct


class File:
    """A model file apart. header: [(name, what is said of it)] in order, metadata among them."""

    def __init__(self, data):
        size = int.from_bytes(data[:8], "little")
        self.header = list(json.loads(data[8 : 8 + size]).items())
        self.data = data[8 + size :]

    def tensors(self):
        return [i for i, (name, _) in enumerate(self.header) if name != "__metadata__"]

    def metadata(self):
        return dict(self.header).get("__metadata__")

    def set_metadata(self, value):
        self.header = [(name, value if name == "__metadata__" else one) for name, one in self.header]

    def bytes_of(self, i):
        begin, end = self.header[i][1]["data_offsets"]
        return self.data[begin:end]

    def lay_out(self, bodies):
        """Places for bodies, {number: bytes}, one behind the other; of other tensors what they had."""
        out, at = [], 0
        for i, (name, one) in enumerate(self.header):
            if name != "__metadata__":
                body = bodies[i] if i in bodies else self.bytes_of(i)
                one = one | {"data_offsets": [at, at + len(body)]}
                out.append(body)
                at += len(body)
            self.header[i] = name, one
        self.data = b"".join(out)

    def json(self):
        """As text; names may occur twice."""
        items = (f"{json.dumps(name)}:{json.dumps(one)}" for name, one in self.header)
        return ("{" + ",".join(items) + "}").encode()

    def join(self, text=None, size=None):
        text = self.json() if text is None else text
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text) if size is None else size) + text + self.data
