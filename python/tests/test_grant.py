"""A grant says what was meant, or is a ValueError that names the field."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import wsredis


def test_what_was_not_said_is_not_in_the_grant():
    assert wsredis.grant() == "{}"
    assert json.loads(wsredis.grant(subscribe=["a"])) == {"subscribe": ["a"]}


def test_every_field_arrives():
    fields = {
        "subscribe": ["a", "b:c"],
        "publish": ["a"],
        "sender": {"user": "ann"},
        "echo": True,
        "user": "7",
        "session": "5ba1",
        "expires_in": 600,
        "heartbeat": "--beat--",
        "subprotocol": "wsredis.v1",
        "format": "binary",
        "origins": ["https://example.com", "http://[::1]:8000"],
        "slow": "latest",
    }
    assert json.loads(wsredis.grant(**fields)) == fields


@pytest.mark.parametrize("sender", [0, "", False, [], {}])
def test_an_empty_sender_is_a_sender(sender):
    assert json.loads(wsredis.grant(sender=sender)) == {"sender": sender}


def test_the_text_is_ascii_without_control_characters_whatever_is_in_it():
    text = wsredis.grant(
        subscribe=["zoë", "日本"], sender={"name": "a\r\nSet-Cookie: b=c", "🙂": 1}
    )
    assert text.isascii() and text.isprintable()
    assert json.loads(text)["subscribe"] == ["zoë", "日本"]


def test_a_channel_named_twice_is_granted_once_and_the_order_stays():
    assert json.loads(wsredis.grant(subscribe=["b", "a", "b"])) == {"subscribe": ["b", "a"]}


def test_a_generator_of_channels_is_a_list_of_channels():
    assert json.loads(wsredis.grant(subscribe=(f"c{n}" for n in range(2)))) == {
        "subscribe": ["c0", "c1"]
    }


def test_a_time_is_rounded_up_to_seconds():
    assert json.loads(wsredis.grant(expires_in=timedelta(milliseconds=1))) == {"expires_in": 1}
    assert json.loads(wsredis.grant(expires_in=timedelta(minutes=2))) == {"expires_in": 120}


@pytest.mark.parametrize("name", ["", "__keyspace@0__:a", "a\nb", "a\x7f", "\x85", "a" * 256, 7])
@pytest.mark.parametrize("field", ["subscribe", "publish"])
def test_a_bad_channel_name_is_refused_by_field(field, name):
    with pytest.raises(ValueError, match=field):
        wsredis.grant(**{field: [name]})


def test_the_length_of_a_channel_name_is_counted_in_bytes():
    wsredis.grant(subscribe=["a" * 255])
    wsredis.grant(subscribe=["é" * 127])
    with pytest.raises(ValueError, match="256 bytes"):
        wsredis.grant(subscribe=["é" * 128])


@pytest.mark.parametrize(
    "fields",
    [
        {"subscribe": "news"},
        {"subscribe": b"news"},
        {"subscribe": {"news": 1}},
        {"subscribe": None},
        {"subscribe": 7},
        {"subscribe": ["\ud800"]},
        {"publish": "news"},
        {"sender": object()},
        {"sender": float("nan")},
        {"sender": "\ud800"},
        {"echo": 1},
        {"user": 7},
        {"user": ""},
        {"session": b"x"},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": 1.5},
        {"expires_in": True},
        {"expires_in": "600"},
        {"expires_in": timedelta(0)},
        {"user": "a\nb"},
        {"user": "é" * 128},
        {"expires_in": 2_000_000_000},
        {"sender": "x" * 4095},
        {"heartbeat": 5},
        {"heartbeat": "x" * 126},
        {"heartbeat": ""},
        {"subprotocol": "a b"},
        {"subprotocol": "a,b"},
        {"subprotocol": ""},
        {"format": "text"},
        {"format": 1},
        {"slow": "drop"},
        {"slow": True},
        {"slow": ""},
        {"origins": "https://example.com"},
        {"origins": ["example.com"]},
        {"origins": ["https://example.com/"]},
        {"origins": ["https://*.example.com"]},
        {"origins": ["https://a b"]},
        {"origins": [{}]},
        {"origins": [f"https://{n}.example" for n in range(21)]},
    ],
)
def test_a_wrong_value_is_refused_by_field(fields):
    with pytest.raises(ValueError, match=next(iter(fields)).rstrip("s") + "|grant"):
        wsredis.grant(**fields)


def test_a_sender_that_holds_itself_is_refused():
    sender: list = []
    sender.append(sender)
    with pytest.raises(ValueError, match="JSON"):
        wsredis.grant(sender=sender)


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match="subscribes"):
        wsredis.grant(subscribes=["news"])


class Answer:
    """What a WSGI app answered."""

    def __init__(self, method: str = "GET", **fields: object) -> None:
        self.body = b"".join(wsredis.wsgi_grant({"REQUEST_METHOD": method}, self._start, **fields))

    def _start(self, status: str, headers: list) -> None:
        self.status, self.headers = status, dict(headers)


def test_wsgi_answers_a_grant_under_the_plugin(plugin):
    answer = Answer(subscribe=["news"])
    assert answer.status == "200 OK" and answer.body == b""
    assert answer.headers["WSRedis-Grant"] == '{"subscribe":["news"]}'
    assert answer.headers["Cache-Control"] == "no-store"


def test_wsgi_keeps_the_grant_and_says_the_cure_without_the_plugin():
    answer = Answer(subscribe=["news"])
    assert answer.status.startswith("501 ")
    assert "WSRedis-Grant" not in answer.headers
    assert b"need-plugin" in answer.body
    assert answer.headers["Content-Length"] == str(len(answer.body))


def test_wsgi_grants_nothing_to_a_post(plugin):
    answer = Answer("POST", subscribe=["news"])
    assert answer.status.startswith("405 ") and "WSRedis-Grant" not in answer.headers


def test_an_answer_is_what_flask_takes(plugin, monkeypatch):
    body, status, headers = wsredis.answer(subscribe=["news"])
    assert (body, status) == ("", 200)
    assert headers == {"WSRedis-Grant": '{"subscribe":["news"]}', "Cache-Control": "no-store"}
    monkeypatch.delenv("WSREDIS_VERSION")
    body, status, headers = wsredis.answer(subscribe=["news"])
    assert status == 501 and "need-plugin" in body and "WSRedis-Grant" not in headers


def test_wsgi_refuses_a_bad_grant_with_and_without_the_plugin(monkeypatch):
    with pytest.raises(ValueError):
        Answer(subscribe="news")
    monkeypatch.setenv("WSREDIS_VERSION", "0.1.0")
    with pytest.raises(ValueError):
        Answer(subscribe="news")
