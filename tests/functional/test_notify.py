"""Notifications by webhook and mail: to a real HTTP server and to aiosmtpd, with senders that are killed."""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import Authority
from listening import free_port, wait_for
from notifying import SECRET, configure, fail_job
from receivers import mail_server, webhook
from sqlalchemy import select
from stages import Stages
from typer.testing import CliRunner

from alnnode.cli.app import app
from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.db.notify_tables import MessageRow, MessageState, NoticeRow
from alnnode.errors import ServiceError, SettingsError
from alnnode.node import supervisor
from alnnode.notify.webhook import WebhookChannel, signature
from alnnode.settings import Mail, Webhook, load

VERIFY = Path(__file__).parents[2] / "docs" / "examples" / "verify_webhook.py"


@contextmanager
def sender(config):
    """A process that sends notifications, killed at the end."""
    process = subprocess.Popen([sys.executable, str(Path(__file__).parent / "notifier_process.py"), str(config)])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)


def test_each_event_arrives_once_on_each_channel_whenever_the_sender_is_killed(tmp_path, capsys) -> None:
    with webhook() as hook, mail_server() as mail:
        config = configure(tmp_path, hook, mail)
        url = load(config).database_url
        schema.migrate(url)
        engine = engines.create(url)
        stages = Stages(engine)
        jobs = [fail_job(stages, f"1.2.3.{number}") for number in range(3)]
        hook.answers.clear()
        with sender(config):  # killed while the receiver of the webhook has the message and has not answered
            wait_for(lambda: hook.received)
        hook.answers.set()
        mail.answers.clear()
        with sender(config):  # killed while the mail server has the message and has not answered
            wait_for(lambda: mail.received)
        jobs += [fail_job(stages, f"1.2.4.{number}") for number in range(2)]
        mail.answers.set()

        def open_messages() -> list[str]:
            with engine.connect() as connection:
                waiting = connection.execute(select(MessageRow.message_id).where(MessageRow.state != MessageState.SENT)).all()
                ungathered = connection.execute(select(NoticeRow.event_id).where(NoticeRow.message_id.is_(None))).all()
                told = connection.execute(select(NoticeRow.subject)).scalars().all()
            return [*waiting, *ungathered, *(set(jobs) - set(told))]

        with sender(config):
            wait_for(lambda: not open_messages(), 60)
        engine.dispose()
    bodies = {headers["webhook-id"]: body for headers, body in hook.received}
    assert [body for headers, body in hook.received if bodies[headers["webhook-id"]] != body] == [], (
        "a retry is the same message"
    )
    events = [event for body in bodies.values() for event in json.loads(body)["events"]]
    assert sorted(event["subject"] for event in events) == sorted(jobs)
    assert len({event["id"] for event in events}) == len(jobs)
    mails = {message["Message-ID"]: message.get_content() for _, _, message in mail.received}
    assert all(mails[message["Message-ID"]] == message.get_content() for _, _, message in mail.received)
    assert [sum(job in content for content in mails.values()) for job in jobs] == [1] * len(jobs)
    with capsys.disabled():
        print(  # noqa: T201 - the figures of the check
            f"\n{len(jobs)} events, 2 kills of the sender: webhook {len(hook.received)} requests, {len(bodies)} messages;"
            f" mail {len(mail.received)} mails, {len(mails)} Message-IDs; each event in one message of each channel"
        )
    # Only a message whose answer the killed sender did not see is sent again.
    assert (len(hook.received) - len(bodies), len(mail.received) - len(mails)) == (1, 1)


def message(channel="webhook"):
    from alnnode.notify.outbox import Message, Notice

    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Message("m1", channel, 1, now, (Notice("e1", "test", "test", "Nothing is wrong.", now),))


def test_the_example_of_the_manual_verifies_a_webhook_and_refuses_a_forged_one(tmp_path) -> None:
    port = free_port()
    (tmp_path / "secret").write_text(SECRET)
    receiver = subprocess.Popen([sys.executable, str(VERIFY), str(port), str(tmp_path / "secret")], stdout=subprocess.PIPE)
    try:
        there = Webhook(url=f"http://127.0.0.1:{port}/", secret_file=tmp_path / "secret")

        def sends(channel) -> bool:
            try:
                channel.send(message())
            except ServiceError:
                return False
            return True

        wait_for(lambda: sends(WebhookChannel(there, "ALNNODE")))
        (tmp_path / "other").write_text("another secret of this length")
        forged = WebhookChannel(Webhook(url=there.url, secret_file=tmp_path / "other"), "ALNNODE")
        with pytest.raises(ServiceError, match="webhook: 127.0.0.1 answers HTTP 401: check the receiver"):
            forged.send(message())
        WebhookChannel(there, "ALNNODE").send(message())  # a duplicate is accepted, and printed once
    finally:
        receiver.terminate()
        printed = receiver.communicate(timeout=30)[0].decode().splitlines()
    assert printed == ["2026-01-02T03:04:05+00:00 test Nothing is wrong."]


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The test vector of the reference libraries (standardwebhooks.com)."""
    import base64

    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


class Login:
    """Accepts one user."""

    def __call__(self, _server, _session, _envelope, _mechanism, data):
        from aiosmtpd.smtp import AuthResult

        return AuthResult(success=(data.login, data.password) == (b"alnnode", b"hunter2"), handled=False)


def test_mail_over_starttls_with_a_login(tmp_path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    pair = authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair)
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "wrong").write_text("hunter3\n")
    with mail_server(tls_context=context, require_starttls=True, auth_required=True, authenticator=Login()) as server:
        known = {
            "host": "localhost",
            "port": server.port,
            "sender": "a@b.example",
            "recipients": ["c@d.example"],
            "timeout": 20,
        }
        known |= {"user": "alnnode", "password_file": tmp_path / "password", "tls": {"ca": authority.pem}}

        def send(**changes) -> None:
            from alnnode.notify.mail import MailChannel

            MailChannel(Mail(**known | changes), "ALNNODE").send(message("mail"))

        send()
        ((sender_address, recipients, mail),) = server.received
        assert (sender_address, recipients) == ("a@b.example", ["c@d.example"])
        assert mail["Message-ID"] == "<m1@b.example>"
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["Subject"] == "[ALNNODE] test message"
        assert "Nothing is wrong." in mail.get_content()
        with pytest.raises(ServiceError, match="does not accept user and password: correct user and password_file"):
            send(password_file=tmp_path / "wrong")
        with pytest.raises(ServiceError, match=r"the certificate of localhost:\d+ is not valid for it"):
            send(tls={"ca": stranger.pem})
        server.status = 451
        with pytest.raises(ServiceError, match=r"answers 451: read the log of the mail server"):
            send()
    with pytest.raises(ServiceError, match=r"localhost:\d+ refuses connections: check host and port"):
        send()
    with pytest.raises(ServiceError, match=r"cannot resolve host nowhere\.invalid: check \[notify\] mail host"):
        send(host="nowhere.invalid")


def test_the_command_sends_a_test_message_and_says_what_failed(tmp_path) -> None:
    with webhook() as hook, mail_server() as mail:
        config = configure(tmp_path, hook, mail)
        done = CliRunner().invoke(app, ["notify", "--test", "--config", str(config)])
        assert done.exit_code == 0, done.output
        assert done.output.splitlines() == [
            "webhook: the receiver accepted a test message",
            "mail: the receiver accepted a test message",
        ]
        assert json.loads(hook.received[0][1])["node"] == "ALNNODE"
        assert mail.received[0][1] == ["pacs@hospital.example", "it@hospital.example"]
        hook.status = 500
        done = CliRunner().invoke(app, ["notify", "--test", "--config", str(config)])
        assert done.exit_code == 1
        assert "webhook: 127.0.0.1 answers HTTP 500: check the receiver" in done.output
        assert "hunter2" not in done.output, "the URL may hold a token"
        assert len(mail.received) == 2, "the other channel is tested too"


def test_a_secret_that_cannot_be_used_is_an_error_with_words(tmp_path) -> None:
    (tmp_path / "short").write_text("hunter2")
    (tmp_path / "odd").write_text("whsec_ä")
    for file, words in {"none": "cannot read secret_file", "short": "less than 16 bytes", "odd": "not base64"}.items():
        with pytest.raises(ServiceError, match=words):
            WebhookChannel(Webhook(url="https://h/", secret_file=tmp_path / file), "ALNNODE").send(message())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('webhook = { url = "http://elsewhere/", secret_file = "s" }', "notify.webhook.url"),
        ('mail = { host = "h", sender = "a@b", recipients = [] }', "notify.mail.recipients"),
        ('mail = { host = "h", sender = "a b", recipients = ["a@b"] }', "notify.mail.sender"),
        ('mail = { host = "h", sender = "a@b", recipients = ["a@b"], user = "u" }', "user and password_file belong together"),
        (
            'mail = { host = "h", sender = "a@b", recipients = ["a@b"], user = "u", password_file = "p", security = "none" }',
            "sends a password unencrypted",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_their_key(tmp_path, line, words) -> None:
    (tmp_path / "config.toml").write_text(f"[notify]\n{line}\n")
    with pytest.raises(SettingsError, match=words):
        load(tmp_path / "config.toml")


def test_the_supervisor_sends_notifications_until_it_is_stopped(tmp_path) -> None:
    """Without listeners and workers, which have their own tests."""
    with webhook() as hook, mail_server() as mail:
        config = configure(tmp_path, hook, mail)
        found = load(config)
        found = found.model_copy(update={"internal": found.internal.model_copy(update={"notify_interval": 0.05})})
        schema.migrate(found.database_url)
        engine = engines.create(found.database_url)
        job_id = fail_job(Stages(engine), "1.2.3.1")
        engine.dispose()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def stop() -> None:
            try:
                wait_for(lambda: hook.received and mail.received, 60)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        stopping = threading.Thread(target=stop)
        try:
            stopping.start()
            assert supervisor._run(found, None, supervisor.Command("sweep", config, lambda _: []), sweeps=True) == 0
        finally:
            stopping.join(90)
            for number, handler in before.items():
                signal.signal(number, handler)
    assert [event["subject"] for event in json.loads(hook.received[0][1])["events"]] == [job_id]
    assert job_id in mail.received[0][2].get_content()
