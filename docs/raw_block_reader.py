#!/usr/bin/python3
"""Prints the messages of a raw block (the bytes of raw_blocks.data, codec zstd): seq, message."""
import struct, sys, zstandard
data = zstandard.ZstdDecompressor().decompress(open(sys.argv[1], "rb").read())
(count,) = struct.unpack_from("<I", data)
entries = [struct.unpack_from("<QI", data, 4 + 12 * entry) for entry in range(count)]
start = 4 + 12 * count
for seq, length in entries:
    sys.stdout.buffer.write(b"%d %s\n" % (seq, data[start:start + length]))
    start += length
