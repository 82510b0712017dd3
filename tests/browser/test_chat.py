"""The chat of `make run` in a real browser, on a real uWSGI with the plugin.

From the environment: WSREDIS_PLUGIN (uwsgi-plugin/wsredis_plugin.so), WSREDIS_UWSGI
(/usr/bin/uwsgi), CHAT_VENV (a virtualenv with Django for that uWSGI's Python; default: the one
that runs the tests), WSREDIS_SCREENSHOTS (where the pictures go; default: a temporary folder).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=10_000)

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, why) -> None:
    """Returns once `condition()` is true; fails the test after ten seconds with `why()`."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.02)


class Chat:
    """uWSGI with examples/chat/uwsgi.ini on a port of its own, in a process group of its own."""

    def __init__(self, folder: Path, redis_url: str | None = None) -> None:
        self.plugin = Path(
            os.environ.get("WSREDIS_PLUGIN", ROOT / "uwsgi-plugin/wsredis_plugin.so")
        )
        self.binary = shutil.which(os.environ.get("WSREDIS_UWSGI", "/usr/bin/uwsgi"))
        if self.binary is None:
            pytest.skip("there is no uWSGI (WSREDIS_UWSGI): the chat is NOT tested")
        if not self.plugin.exists():
            pytest.skip(f"{self.plugin} is not built (make plugin): the chat is NOT tested")
        self.log = folder / "uwsgi.log"
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("WSREDIS_")},
            "WSREDIS_PLUGIN": str(self.plugin.resolve()),
            "CHAT_VENV": os.environ.get("CHAT_VENV", sys.prefix),
            "CHAT_ADDRESS": self.address,
            # Where the keeper's folder is made; the name of a socket there must be short.
            "TMPDIR": tempfile.mkdtemp(prefix="chat"),
        }
        if redis_url:
            self.environment["WSREDIS_REDIS_URL"] = redis_url
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "--ini", str(ROOT / "examples/chat/uwsgi.ini")],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._answers, self.log.read_text)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return urllib.request.urlopen(self.url, timeout=5).status == 200
        except OSError:
            return False

    def keepers(self) -> list[int]:
        """Its folder is among its arguments."""
        folder = self.environment["TMPDIR"].encode()
        found = []
        for arguments in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                if folder in arguments.read_bytes():
                    found.append(int(arguments.parent.name))
        return found

    def end(self, how: signal.Signals) -> None:
        if how == signal.SIGKILL:
            # The workers too: they are in the group that the master leads. The keeper is not.
            os.killpg(self.process.pid, how)
            for pid in self.keepers():
                os.kill(pid, how)
        else:
            self.process.send_signal(how)
        self.process.wait(timeout=20)


@pytest.fixture
def chat(tmp_path) -> Iterator[Chat]:
    chat = Chat(tmp_path)
    yield chat
    if chat.process.poll() is None:
        chat.end(signal.SIGKILL)
    shutil.rmtree(chat.environment["TMPDIR"], ignore_errors=True)


@pytest.fixture
def context(browser):
    context = browser.new_context()
    context.set_default_timeout(10_000)
    yield context
    context.close()


def join(context, chat, name: str, room: str = "lobby"):
    """A tab of somebody who came in by the front door."""
    page = context.new_page()
    page.goto(chat.url)
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Room").fill(room)
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("status")).to_have_text("Connected")
    expect(page.get_by_text("You came in.")).to_be_visible()
    return page


def say(page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")


def texts(page) -> list[str]:
    return page.locator(".line .text").all_inner_texts()


def number(page, key: str) -> str:
    return page.locator(f"[data-key={key}]").inner_text()


def test_two_tabs_talk_both_ways_under_two_names(chat, context):
    ada, ben = join(context, chat, "Ada"), join(context, chat, "Ben Ó'Néill")
    expect(ada.get_by_text("Ben Ó'Néill came in.")).to_be_visible()
    say(ada, "Hello <b>you</b>\n\nthere")
    expect(ben.locator(".line .text")).to_have_text(["Hello <b>you</b>\n\nthere"])
    expect(ben.locator(".line .by b")).to_have_text(["Ada"])
    say(ben, "日本 🙂")
    for page in (ada, ben):
        expect(page.locator(".line .text")).to_have_text(["Hello <b>you</b>\n\nthere", "日本 🙂"])
    assert ada.locator(".line.mine .text").all_inner_texts() == ["Hello <b>you</b>\n\nthere"]
    assert ben.locator(".line.mine .text").all_inner_texts() == ["日本 🙂"]


def test_what_is_said_in_a_room_stays_in_the_room(chat, context):
    ada, ben = join(context, chat, "Ada"), join(context, chat, "Ben", room="Tree house")
    cleo = join(context, chat, "Cleo", room="tree-house")
    say(ada, "in the lobby")
    expect(ada.locator(".line")).to_have_count(1)
    say(cleo, "up here")
    expect(ben.locator(".line .text")).to_have_text(["up here"])
    assert texts(ada) == ["in the lobby"]


def test_the_servers_own_voice_reaches_everybody(chat, context):
    ada, ben = join(context, chat, "Ada"), join(context, chat, "Ben")
    ada.get_by_role("button", name="Let the server roll a die").click()
    for page in (ada, ben):
        expect(page.get_by_text(re.compile("Ada let the server roll: [1-6]"))).to_be_visible()


def test_typing_is_seen_by_the_other_and_forgotten_when_it_is_said(chat, context):
    ada, ben = join(context, chat, "Ada"), join(context, chat, "Ben")
    ada.get_by_label("Your message").press_sequentially("hm")
    expect(ben.locator("#typing")).to_have_text("Ada is typing…")
    ada.get_by_label("Your message").press("Enter")
    expect(ben.locator("#typing")).to_have_text("")
    assert ada.locator("#typing").inner_text() == ""


def test_the_counter_counts_and_the_numbers_are_the_servers(chat, context):
    ada = join(context, chat, "Ada")
    join(context, chat, "Ben")
    expect(ada.locator("#since")).to_have_text(re.compile("0:0[2-9]"))
    expect(ada.locator("[data-key=sockets]")).to_have_text("2")
    assert number(ada, "redis_connections") == "0" and number(ada, "worker")[1:] == " of 4"
    assert int(number(ada, "fds")) > 2 and int(number(ada, "bytes_per_socket").replace(",", "")) > 0


def test_a_reload_of_the_server_is_not_noticed(chat, context):
    """Everything but the keeper is another process afterwards."""
    ada, ben = join(context, chat, "Ada"), join(context, chat, "Ben")
    seen = "window.statuses = []; socket.addEventListener('status', (e) => statuses.push(e.detail))"
    for page in (ada, ben):
        page.evaluate(seen)
    opened = ada.evaluate("openedAt")
    for line in ("one", "two"):
        # The last thing that uWSGI does when it starts; earlier, it would miss the next signal.
        started = chat.log.read_text().count("spawned wsredis keeper")
        chat.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda n=started: chat.log.read_text().count("spawned wsredis keeper") > n,
            chat.log.read_text,
        )
        say(ada, line)
        expect(ben.locator(".line .text").last).to_have_text(line)
    for page in (ada, ben):
        assert page.evaluate("statuses") == []
    assert ada.evaluate("openedAt") == opened, "the counter runs on"
    ben.get_by_role("button", name="Let the server roll a die").click()
    expect(ada.get_by_text(re.compile("Ben let the server roll: [1-6]"))).to_be_visible()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_restarted_server_is_found_again_and_messages_flow(chat, context, how):
    ada, ben = join(context, chat, "Ada"), join(context, chat, "Ben")
    expect(ada.locator("#since")).to_have_text(re.compile("0:0[2-9]"))
    opened = ada.evaluate("openedAt")
    chat.end(how)
    for page in (ada, ben):
        expect(page.get_by_role("status")).to_have_text("Reconnecting")
    say(ada, "into the void")
    assert ada.get_by_label("Your message").input_value() == "into the void", "it is kept"
    chat.start()
    for page in (ada, ben):
        # A hidden tab's delay may be long by now; whoever looks at it hurries it.
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.get_by_role("status")).to_have_text("Connected", timeout=30_000)
        expect(page.get_by_text("Connected again.")).to_be_visible()
    assert ada.evaluate("openedAt") > opened, "the counter begins anew"
    ada.get_by_label("Your message").press("Enter")
    expect(ben.locator(".line .text")).to_have_text(["into the void"])
    say(ben, "back")
    expect(ada.locator(".line .text")).to_have_text(["into the void", "back"])


def test_nobody_speaks_under_a_name_that_is_not_theirs(chat, context, browser):
    ada = join(context, chat, "Ada")
    other = browser.new_context()
    page = other.new_page()
    page.goto(f"{chat.url}/room/lobby/?as=Ada")
    assert page.url == f"{chat.url}/?room=lobby", "a stranger is sent to the door"
    page.goto(f"{chat.url}/static/chat/icon.svg")
    assert page.evaluate("fetch('/ws/lobby/?as=Ada').then((r) => r.status)") == 401
    stranger = join(other, chat, "Eve")
    stranger.evaluate(
        "window.forged = new WSRedis('/ws/lobby/?as=Ada'); forged.addEventListener('status',"
        "(event) => { window.forgedStatus = event.detail; })"
    )
    stranger.wait_for_function("window.forgedStatus && forgedStatus.status === 'stopped'")
    assert stranger.evaluate("[forgedStatus.reason, forgedStatus.code]") == ["unauthorized", 401]
    stranger.evaluate("socket.send(channel, { sender: { name: 'Ada' }, text: 'I am Ada' })")
    expect(ada.locator(".line .by b")).to_have_text(["Eve"])
    other.close()


def test_who_may_connect_is_told_426_and_never_the_grant(chat, context):
    ada = join(context, chat, "Ada")
    told = ada.evaluate(
        "fetch('/ws/lobby/?as=Ada').then((r) => [r.status, r.headers.get('WSRedis-Grant')])"
    )
    assert told == [426, None]


@pytest.mark.parametrize(
    ("name", "room"),
    [("-x", "lobby"), ("x" * 25, "lobby"), ("Ada", "a/b"), ("Ada", "-a"), ("", "a")],
)
def test_a_bad_name_is_answered_at_the_door(chat, context, name, room):
    page = context.new_page()
    page.goto(chat.url)
    page.locator("form").first.evaluate("(form) => { form.noValidate = true; }")
    for label, value in (("Your name", name), ("Room", room)):
        page.get_by_label(label).evaluate("(input) => input.removeAttribute('maxlength')")
        page.get_by_label(label).fill(value)
    with page.expect_response(chat.url + "/") as response:
        page.get_by_role("button", name="Join").click()
    assert response.value.status == 400
    expect(page.get_by_role("alert")).to_be_visible()


SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_the_screen_by_day_and_by_night(chat, browser, tmp_path, theme, size):
    folder = Path(os.environ.get("WSREDIS_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport=SIZES[size], color_scheme=theme)
    context.set_default_timeout(10_000)
    ben, ada = join(context, chat, "Ben"), join(context, chat, "Ada")
    say(ben, "Is it really one worker that holds all of us?")
    expect(ada.locator(".line")).to_have_count(1)
    say(ben, "I have forty tabs open.")
    expect(ada.locator(".line")).to_have_count(2)
    say(ada, "The worker let us in and went back to work.\nThe engine holds our sockets.")
    ada.get_by_role("button", name="Let the server roll a die").click()
    expect(ada.locator(".note b")).to_be_visible()
    expect(ada.locator("[data-key=sockets]")).to_have_text("2")
    ada.bring_to_front()
    ada.screenshot(path=folder / f"chat-{theme}-{size}.png", animations="disabled")
    background = ada.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = max(int(part) for part in re.findall(r"\d+", background))
    assert brightness > 200 if theme == "light" else brightness < 60
    wide = "document.documentElement.scrollWidth - innerWidth"
    assert ada.evaluate(wide) <= 0, "nothing is scrolled sideways"
    box = ada.get_by_label("Your message").bounding_box()
    assert box["y"] + box["height"] <= SIZES[size]["height"], "the composer is on the screen"
    context.close()


def test_on_redis_several_workers_make_one_room(context, tmp_path):
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed: the chat on Redis is NOT tested")
    port = free_port()
    redis = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, lambda: "Redis does not listen")
        chat = Chat(tmp_path, f"redis://127.0.0.1:{port}")
        try:
            pages = [join(context, chat, name) for name in ("Ada", "Ben", "Cleo", "Dan")]
            for n, page in enumerate(pages):
                say(page, f"message {n}")
                for other in pages:
                    expect(other.locator(".line")).to_have_count(n + 1)
            pages[0].get_by_role("button", name="Let the server roll a die").click()
            command = ["redis-cli", "-p", str(port), "PUBLISH", "room:lobby", "from the shell"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            for page in pages:
                expect(page.get_by_text("Ada let the server roll")).to_be_visible()
                expect(page.get_by_text("from the shell")).to_be_visible()
            expect(pages[0].locator("[data-key=worker]")).to_have_text(re.compile("[1-4] of 4"))
        finally:
            chat.end(signal.SIGKILL)
    finally:
        redis.terminate()
        redis.wait()
