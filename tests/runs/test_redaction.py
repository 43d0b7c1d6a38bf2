"""Secrets in config and report: lmms-eval's rule, and where ours differs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.runs.redaction import REDACTED, redact

TOKEN = "hf_" + "a1" * 12
"""Looks like a token of the Hub; is none."""


@pytest.mark.parametrize(
    "key",
    [
        "api_key",
        "client_secret",
        "hf_token",
        "huggingface_hub_token",
        "huggingfacehub_api_token",
        "token",
        "TOKEN",
        "Api_Key",
        "openai_api_key",
        "my_token",
        "aws_secret",
        "password",
        "db_password",
        "dbpassword",
    ],
)
def test_the_value_of_a_secret_key_is_redacted(key):
    assert {"a": {key: REDACTED}} == redact({"a": {key: "s3cret"}})


@pytest.mark.parametrize(
    "key",
    ["max_tokens", "password_hash", "tokens", "secretary", "tokenizer", "token_counts", "key", "apikey_"],
)
def test_a_key_that_only_resembles_one_keeps_its_value(key):
    assert {key: "v"} == redact({key: "v"})


@pytest.mark.parametrize(
    "key",
    [
        "tokenizer_pad_token",
        "tokenizer_eos_token",
        "tokenizer_bos_token",
        "pad_token",
        "eos_token",
        "image_token",
    ],
)
@pytest.mark.parametrize("value", ["<|endoftext|>", ["<pad>", "0"]])
def test_special_tokens_of_a_tokenizer_are_no_secrets(key, value):
    assert {key: value} == redact({key: value})
    assert value == redact(value, key)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("model=m,api_key=abc,n=1", f"model=m,api_key={REDACTED},n=1"),
        ("api_key=abc", f"api_key={REDACTED}"),
        ("OPENAI_API_KEY=abc MY_TOKEN=d", f"OPENAI_API_KEY={REDACTED} MY_TOKEN={REDACTED}"),
        ("a=1, password=x y", f"a=1, password={REDACTED} y"),
        ("max_tokens=5", "max_tokens=5"),
        ("password_hash=5", "password_hash=5"),
        ("pad_token=<pad>,token=x", f"pad_token=<pad>,token={REDACTED}"),
        ("base_url=http://h/?api_key=abc", "base_url=http://h/?api_key=abc"),
        (f"use {TOKEN} here", f"use {REDACTED} here"),
        (f"https://user:{TOKEN}@h", f"https://user:{REDACTED}@h"),
        ("hf_short", "hf_short"),
        ("", ""),
    ],
)
def test_secrets_inside_texts_are_redacted(text, redacted):
    assert redacted == redact(text)
    assert [{"x": redacted}] == redact([{"x": text}])


@pytest.mark.parametrize("value", [True, False, None, ""])
def test_what_can_be_no_secret_stays_under_a_secret_key(value):
    assert {"token": value} == redact({"token": value})


def test_everything_below_a_secret_key_is_a_secret():
    sent = {"api_key": {"openai": "sk-1", "others": ["sk-2", {"name": "sk-3"}]}, "token": ["a", "b"]}
    wanted = {
        "api_key": {"openai": REDACTED, "others": [REDACTED, {"name": REDACTED}]},
        "token": [REDACTED, REDACTED],
    }
    assert wanted == redact(sent)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["token", "a", "max_tokens", "api_key"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(values)
def test_redacting_twice_changes_nothing_more_and_the_shape_stays(value):
    once = redact(value)
    assert once == redact(once)
    assert shape(value) == shape(once)


def shape(value):
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else None


def test_what_was_given_is_not_changed():
    sent = {"token": "x", "a": ["api_key=1"]}
    before = json.dumps(sent)
    redact(sent)
    assert before == json.dumps(sent)
