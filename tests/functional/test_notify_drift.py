"""The drift of the probabilities: measured by day, told once while it lasts, by webhook and by mail to a real SMTP server."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from notifying import telling
from receivers import mail_server

from alnnode.notify import drift
from alnnode.status.progress import WorkProgress

DIGEST, OTHER = "ab" * 32, "cd" * 32
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOW, HIGH = [0.05, 0.15, 0.25, 0.35, 0.55], [0.55, 0.65, 0.75, 0.85, 0.95]
A_DAY = 50  # nodes


class Days:
    """Days of analyses, one after another."""

    def __init__(self, engine) -> None:
        self.progress, self.day = WorkProgress(engine), START

    def go_by(self, days, values, digest=DIGEST) -> None:
        for _ in range(days):
            self.progress.count_probabilities(digest, values * (A_DAY // len(values)), self.day)
            self.day += timedelta(days=1)


@pytest.fixture
def days(engine, monkeypatch):
    monkeypatch.setattr(drift, "CHECK_INTERVAL", 0)
    return Days(engine)


def measured(engine):
    with engine.connect() as connection:
        return drift.measure(connection)


def test_the_last_days_are_compared_with_the_first_days_of_the_same_bundle(engine, days) -> None:
    assert measured(engine) is None
    days.go_by(30, HIGH, OTHER)
    days.go_by(19, LOW)
    assert measured(engine) is None, "there are fewer nodes than two windows"
    days.go_by(1, LOW)
    found = measured(engine)
    assert (found.bundle, found.index) == (DIGEST[:40], 0)
    assert (found.reference.first, found.reference.last) == ("2026-03-31", "2026-04-09")
    assert (found.recent.first, found.recent.last, sum(found.recent.counts)) == ("2026-04-10", "2026-04-19", drift.WINDOW)
    days.go_by(10, HIGH)
    assert measured(engine).index > drift.BEGINS


def test_on_the_day_of_a_change_the_new_bundle_is_measured(engine, days) -> None:
    days.go_by(40, LOW)
    days.day -= timedelta(days=1)
    days.go_by(1, LOW, OTHER)
    assert measured(engine) is None, "the new bundle has no windows yet, and the old one is not in use"
    days.progress.count_probabilities(DIGEST, LOW, days.day - timedelta(days=1))  # the last analysis of the old bundle ends
    assert measured(engine) is None


def test_the_index_is_that_of_the_definition_and_chance_alone_stays_below_the_limit() -> None:
    import numpy as np

    assert drift.stability_index([10, 20], [10, 20]) == 0
    assert drift.stability_index([99.5, 299.5], [199.5, 199.5]) == pytest.approx(
        (0.5 - 100 / 400) * np.log(0.5 / 0.25) + (0.5 - 0.75) * np.log(0.5 / 0.75), rel=0.01
    )
    generator, shares = np.random.default_rng(1), np.array([20, 15, 12, 10, 8, 7, 7, 7, 7, 7]) / 100
    samples = generator.multinomial(drift.WINDOW, shares, (2000, 2))
    assert max(drift.stability_index(first, second) for first, second in samples) < drift.BEGINS / 2


def test_a_drift_is_told_once_by_webhook_and_mail_and_so_is_its_end(tmp_path, engine, days) -> None:
    with mail_server() as mail:
        there = {
            "host": "127.0.0.1",
            "port": mail.port,
            "security": "none",
            "sender": "alnnode@hospital.example",
            "recipients": ["pacs@hospital.example"],
        }
        with telling(tmp_path, engine, mail=there) as told:
            subject = f"drift {DIGEST[:12]}"
            days.go_by(20, LOW)
            told.after(0)
            assert told.after(2) == []
            days.go_by(10, HIGH)
            told.after(0)
            told.after(2)
            assert told.after(2) == [("drift", subject)]
            days.go_by(10, HIGH)
            assert told.after(100_000) == [("drift", subject)], "once while it lasts"
            days.go_by(10, LOW)
            told.after(10)
            assert told.after(2) == [("drift", subject), ("drift_ended", subject)]
            days.go_by(10, HIGH)
            told.after(0)
            told.after(2)
            days.go_by(1, LOW, OTHER)
            told.after(10)
            assert told.after(2)[2:] == [("drift", subject), ("drift_ended", subject)], "another bundle came into use"
            text = json.loads(told.hook.received[0][1])["events"][0]["text"]
    assert (
        "500 nodes from 2026-03-21 to 2026-03-30, compared with the first 500 nodes of the model, from 2026-03-01 to 2026-03-10"
        in text
    )
    subjects = [message["Subject"] for _, _, message in mail.received]
    changed, before = "probabilities have changed", "probabilities are as before"
    assert subjects == [f"[ALNNODE] {words}" for words in (changed, before, f"{changed}; {before}")], (
        "the last two are one message"
    )
    assert text in mail.received[0][2].get_content().replace("\n", " ")
