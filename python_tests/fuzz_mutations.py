"""Valid files, damaged as crashes, transfers, other programs and attackers damage them."""

import re

from hypothesis import strategies as st

HUGE = [0, 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
NUMBERS = ["0", "-1", "1", "3", "7", "64000", "99999999", "2147483648", "9223372036854775808", "9" * 5000]
NUMBERS += ["1e999", "-1e999", "NaN", "Infinity", "0.5", "1e-400"]
WORDS = [
    b"",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'"x"',
    b"[[[[[[",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'""',
    b"\\ud800",
]
WORDS += [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b'"',
    b",",
    b";",
    b"\t",
    b"'",
    b"nan",
    b"\xed\xa0\x80",
]

_edit = st.tuples(
    st.sampled_from(["bit", "byte", "cut", "drop", "repeat", "splice", "number", "digits", "word", "swap"]),
    st.sampled_from(["head", "any", "tail"]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
)
edits = st.lists(_edit, min_size=1, max_size=4)


def damaged(content: bytes, edits_of: list) -> bytes:
    """A file with some edits: (kind, region, where in it, how)."""
    whole = bytearray(content)
    for kind, region, where, how in edits_of:
        if not whole:
            break
        size = len(whole)
        near = min(size, 512)
        at = {"head": where % near, "any": where % size, "tail": size - 1 - where % near}[region]
        length = 1 + how % 64 if how & 1 else 1 + how % size
        if kind == "bit":
            whole[at] ^= 1 << how % 8
        elif kind == "byte":
            whole[at] = [0, 1, 0x7F, 0x80, 0xFF, how % 256][how % 6]
        elif kind == "cut":
            del whole[at:]
        elif kind == "drop":
            del whole[at : at + length]
        elif kind == "repeat":
            whole[at:at] = whole[at : at + length]
        elif kind == "splice":
            source = how * 2654435761 % size
            whole[at : at + length] = content[source : source + length]
        elif kind == "number":
            value, width, order = (
                HUGE[how % len(HUGE)],
                (2, 4, 8)[how // 13 % 3],
                ("big", "little")[how // 39 % 2],
            )
            whole[at : at + width] = (value % 256**width).to_bytes(width, order)
        elif kind == "digits":
            runs = list(re.finditer(rb"-?\d[\d.e+-]*", whole))
            if runs:
                run = runs[where % len(runs)]
                whole[run.start() : run.end()] = NUMBERS[how % len(NUMBERS)].encode()
        elif kind == "word":
            tokens = list(re.finditer(rb'"[^"]*"|[\w.+-]+|[\[\]{},:;]', whole))
            if tokens:
                token = tokens[where % len(tokens)]
                whole[token.start() : token.end()] = WORDS[how % len(WORDS)]
        elif kind == "swap":
            other = how * 2654435761 % size
            whole[at], whole[other] = whole[other], whole[at]
    return bytes(whole)
