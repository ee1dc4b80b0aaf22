"""A zstd frame with a checksum of its content, which pyarrow leaves out: raw blocks (RFC 8878) and XXH64."""

from __future__ import annotations

BLOCK = 2**10  # small, so that a file cut in half still has whole ones
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
MASK = 2**64 - 1


def zstd_frame(data: bytes) -> bytes:
    """Magic, descriptor (content size of 8 bytes, one segment, checksum), raw blocks, the low half of XXH64."""
    blocks = [data[place : place + BLOCK] for place in range(0, len(data), BLOCK)] or [b""]
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b11100100]) + len(data).to_bytes(8, "little")
    for place, block in enumerate(blocks):
        frame += ((len(block) << 3) | (place == len(blocks) - 1)).to_bytes(3, "little") + block
    return frame + (xxh64(data) & 0xFFFFFFFF).to_bytes(4, "little")


def xxh64(data: bytes) -> int:
    """
    >>> hex(xxh64(b"")), hex(xxh64(b"a")), hex(xxh64(bytes(range(100))))
    ('0xef46db3751d8e999', '0xd24ec4f1a98c6e5b', '0x6ac1e58032166597')
    """
    place = 0
    if len(data) >= 32:
        lanes = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        for place in range(0, len(data) - 31, 32):
            lanes = [_round(lane, _number(data, place + 8 * i, 8)) for i, lane in enumerate(lanes)]
        place += 32
        value = sum(_rotated(lane, turn) for lane, turn in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * P1 + P4) & MASK
    else:
        value = P5
    value = (value + len(data)) & MASK
    while place + 8 <= len(data):
        value = (_rotated(value ^ _round(0, _number(data, place, 8)), 27) * P1 + P4) & MASK
        place += 8
    if place + 4 <= len(data):
        value = (_rotated(value ^ (_number(data, place, 4) * P1 & MASK), 23) * P2 + P3) & MASK
        place += 4
    for byte in data[place:]:
        value = _rotated(value ^ (byte * P5 & MASK), 11) * P1 & MASK
    value = (value ^ (value >> 33)) * P2 & MASK
    value = (value ^ (value >> 29)) * P3 & MASK
    return value ^ (value >> 32)


def _round(lane: int, number: int) -> int:
    return _rotated((lane + number * P2) & MASK, 31) * P1 & MASK


def _rotated(value: int, turn: int) -> int:
    return ((value << turn) | (value >> (64 - turn))) & MASK


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")
