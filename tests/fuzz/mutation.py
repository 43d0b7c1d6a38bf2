"""Inputs made of whole ones: bytes flipped, cut, doubled, spliced, with what JSON and SQLite trip over in between."""

from random import Random

SPLICES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b"\xff", b"NaN", b"Infinity", b"\\ud83d", b"null", b"true",
    b"-1", b"1e999", b"9" * 30, b"\x00", b"\xef\xbb\xbf", b"../", b"[" * 200, b'{"a":' * 100, b"\xe2\x80\xae", b"\xc3\x28",
]  # fmt: skip


def mutate(dice: Random, examples: list[bytes]) -> bytes:
    """One input, from a whole one to noise."""
    if dice.random() < 0.05:
        return dice.randbytes(dice.randrange(200))
    content = bytearray(dice.choice(examples))
    for _ in range(dice.choice([1, 1, 1, 2, 3, 8, 40])):
        place = dice.randrange(len(content) + 1)
        match dice.randrange(6):
            case 0 if content:
                content[place % len(content)] = dice.randrange(256)
            case 1:
                content[place:place] = dice.choice(SPLICES)
            case 2:
                del content[place : place + dice.randrange(1, 20)]
            case 3:
                content[place:place] = content[place : place + dice.randrange(1, 40)]
            case 4:
                other = dice.choice(examples)
                start = dice.randrange(len(other) + 1)
                content[place:place] = other[start : start + dice.randrange(1, 60)]
            case _:
                if dice.random() < 0.1:
                    del content[place:]
    return bytes(content)
