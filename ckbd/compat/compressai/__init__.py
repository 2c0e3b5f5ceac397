"""CompressAI's interfaces, with its bytes and its symbols."""
