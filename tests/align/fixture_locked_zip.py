"""A zip with the old ZIP encryption, which Python reads but does not write (APPNOTE.TXT 6.1, PKWARE)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_TABLE = [0] * 256
for _i in range(256):
    _c = _i
    for _ in range(8):
        _c = (_c >> 1) ^ 0xEDB88320 if _c & 1 else _c >> 1
    _TABLE[_i] = _c


def _encrypted(data: bytes, password: bytes) -> bytes:
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = (keys[0] >> 8) ^ _TABLE[(keys[0] ^ byte) & 0xFF]
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = (keys[2] >> 8) ^ _TABLE[(keys[2] ^ (keys[1] >> 24)) & 0xFF]

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in data:
        key = (keys[2] | 2) & 0xFFFF
        out.append(byte ^ (((key * (key ^ 1)) >> 8) & 0xFF))
        update(byte)
    return bytes(out)


def write_locked(path: Path, folder: Path, password: str) -> None:
    """All files below ``folder``, stored and locked, under their names from there."""
    body, directory, count = bytearray(), bytearray(), 0
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        data, name = file.read_bytes(), file.relative_to(folder).as_posix().encode()
        crc = zlib.crc32(data)
        packed = _encrypted(bytes(11) + bytes([crc >> 24]) + data, password.encode())
        shared = struct.pack("<HHHHHIIIHH", 20, 1, 0, 0, 33, crc, len(packed), len(data), len(name), 0)
        directory += struct.pack("<IH", 0x02014B50, 20) + shared + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        body += struct.pack("<I", 0x04034B50) + shared + name + packed
        count += 1
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), len(body), 0)
    path.write_bytes(bytes(body + directory + end))
