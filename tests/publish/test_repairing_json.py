import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.mending import repair

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=12,
)


def mended(value):
    """What a value must be after repair."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [mended(item) for item in value]
    if isinstance(value, dict):
        return {mended(key): mended(item) for key, item in value.items()}
    return value


def test_non_numbers_become_null():
    assert (b'{"a": null, "b": [null, null, 1]}', 3) == repair(b'{"a": NaN, "b": [Infinity, -Infinity, 1]}')


def test_half_an_emoji_becomes_the_replacement_character():
    assert (b'"\xef\xbf\xbd \\ud83d\\ude00 \xef\xbf\xbd"', 2) == repair(rb'"\ud83d \ud83d\ude00 \uDE00"')


def test_text_about_such_things_is_left_alone():
    text = rb'{"NaN": "Infinity, -Infinity \"NaN\" \\ud83d"}'
    assert (text, 0) == repair(text)


def test_a_long_unclosed_string_is_refused_quickly():
    text = b'{"a": "' + b"x\\" * 1_000_000
    assert (text, 0) == repair(text)


@given(ANY_JSON)
def test_whatever_python_dumps_becomes_strict_and_means_the_same(value):
    # Python joins a high half followed by a low half when it reads them; so does the wire.
    text, faults = repair(json.dumps(value).encode())
    msgspec.json.decode(text, type=msgspec.Raw)
    expected = json.loads(json.dumps(value), parse_constant=lambda _: None)
    assert mended(expected) == json.loads(text)
    assert (faults == 0) == (text == json.dumps(value).encode())
