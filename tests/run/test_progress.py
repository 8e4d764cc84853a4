import io
import sys

import pytest

from fastconv.run.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_other_work_than_samples_is_counted_by_its_name(monkeypatch, stream):
    text = shown(monkeypatch, stream, unit="layers")
    assert " layers, " in text.replace(" (100%)", "") and " layers/s" in text
    assert "samples" not in text


def shown(monkeypatch, stream, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(1000, **options) as progress:
        progress.update(600)
        progress.update(400)
    return stream.getvalue()


def test_a_terminal_shows_a_bar_with_samples_rate_and_time_left(monkeypatch):
    text = shown(monkeypatch, Terminal())
    assert "\r" in text
    assert "1000 of 1000 samples" in text
    assert "samples/s" in text
    assert "left" in text


def test_elsewhere_plain_lines(monkeypatch):
    text = shown(monkeypatch, io.StringIO())
    assert "\r" not in text
    assert text.startswith("1,000 of 1,000 samples (100%), ")
    assert text.endswith(" samples/s, 0:00 left\n")


def test_long_work_reports_now_and_then(monkeypatch):
    monkeypatch.setattr("fastconv.run.progress._SECONDS_BETWEEN_LINES", 0.0)
    lines = shown(monkeypatch, io.StringIO(), done=0).splitlines()
    assert lines[0].startswith("600 of 1,000 samples (60%)")


def test_a_resumed_run_says_what_was_done_before(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(1000, done=400) as progress:
        progress.update(600)
    assert stream.getvalue().startswith("400 of 1,000 samples were done before\n1,000 of 1,000")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_disabled_shows_nothing(monkeypatch, stream):
    assert shown(monkeypatch, stream, enabled=False) == ""


def test_clock():
    assert [clock(s) for s in (0, 59.6, 3599, 3600, 90061)] == [
        *("0:00", "1:00", "59:59", "1:00:00", "25:01:01"),
    ]
