"""Access control: routes without a token, roles, sessions, blocked addresses and host names."""

import re
from hashlib import sha256

import pytest
from dicom_objects import STUDY, ct
from pydantic import ValidationError
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocketDisconnect
from web_service import part10, service, stow

from alnnode.errors import SettingsError
from alnnode.http.access import AccessControl
from alnnode.http.route_table import public_paths
from alnnode.settings import Web, WebToken
from alnnode.web.routes import ROUTES

RATE = 500  # requests of one client in a second


def token(name="reader", *roles, secret="s" * 20):
    return WebToken(name=name, roles=roles or ("read",), sha256=sha256(secret.encode()).hexdigest())


def routes(app):
    for route in app.routes:
        if isinstance(route, Mount):
            continue
        path = route.path
        path = re.sub(r"\{[^}]*\}", "1", path)
        for method in getattr(route, "methods", None) or {"GET"}:
            yield method, path


def test_no_route_answers_without_a_token_but_health_and_login(tmp_path, monkeypatch):
    public = public_paths(ROUTES)
    assert sorted(public) == ["/health/live", "/health/ready", "/login", "/static/"]
    monkeypatch.setattr("alnnode.http.rate_limits.MAX_WRONG_TOKENS", 10_000)
    with service(tmp_path, web=Web(tokens=(token(),))) as (client, _):
        walked = [(method, path) for method, path in routes(client.app) if not path.startswith(public)]
        assert len(walked) >= 25
        for method, path in walked:
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic ?"},
                {"Cookie": "alnnode_session=a.9.b.c"},
            ):
                answer = client.request(method, path, headers=headers, follow_redirects=False)
                assert answer.status_code == 401, (method, path)
                assert answer.text in {"a token is needed", ""}
        assert client.get("/no/such/path").status_code == 401
        channels = [re.sub(r"\{[^}]*\}", "1", route.path) for route in client.app.routes if isinstance(route, WebSocketRoute)]
        assert channels
        for path in channels:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "alnnode_session=a.9.b.c"}):
                with pytest.raises(WebSocketDisconnect), client.websocket_connect(path, headers=headers):
                    pass


def test_health_needs_no_token_and_answers_only_true_or_false(tmp_path):
    with service(tmp_path, web=Web(tokens=(token(),))) as (client, _):
        assert client.get("/health/live").json() == {"live": True}
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] is True
        assert answer.json()["checks"]["worker-analyse"] is False
        assert all(isinstance(value, bool) for value in answer.json()["checks"].values())


def test_roles(tmp_path):
    tokens = (token("r", "read", secret="r"), token("s", "send", secret="s"), token("a", "admin", secret="a"))
    with service(tmp_path, web=Web(tokens=tokens)) as (client, _):

        def ask(method, path, secret):
            return client.request(method, path, headers={"Authorization": f"Bearer {secret}"}).status_code

        assert [ask("GET", "/metrics", secret) for secret in "rsa"] == [200, 403, 200]
        assert [ask("POST", "/dicom-web/studies", secret) for secret in "rsa"] == [403, 415, 415]
        assert client.get("/metrics", auth=("anybody", "r")).status_code == 200  # Basic: the token is the password


def test_wrong_tokens_are_throttled(tmp_path):
    with service(tmp_path, web=Web(tokens=(token(),))) as (client, _):
        answers = [client.get("/metrics", headers={"Authorization": "Bearer no"}).status_code for _ in range(25)]
        assert answers[0] == 401
        assert answers[-1] == 429


def test_a_head_request_to_the_login_page_is_no_wrong_token(tmp_path):
    with service(tmp_path, web=Web(tokens=(token(),))) as (client, _):
        assert {client.head("/login").status_code for _ in range(25)} == {200}
        assert client.post("/login", data={"token": "no"}).status_code == 403


def test_a_right_token_passes_however_many_wrong_ones_came_from_its_address(tmp_path):
    right = "s" * 20
    with service(tmp_path, web=Web(tokens=(token(),))) as (client, _):
        for _ in range(25):
            client.get("/metrics", headers={"Authorization": "Bearer no"})
        assert client.get("/metrics", headers={"Authorization": "Bearer no"}).status_code == 429
        assert client.get("/metrics").status_code == 429
        assert client.get("/metrics", headers={"Authorization": f"Bearer {right}"}).status_code == 200
        assert client.post("/login", data={"token": "no"}).status_code == 429
        assert client.post("/login", data={"token": right}, follow_redirects=False).status_code == 303


def test_wrong_tokens_behind_a_trusted_proxy_are_those_of_their_client(tmp_path):
    web = Web(tokens=(token(),), trusted_proxies=("10.0.0.0/8", "::1/128"))
    with service(tmp_path, web=web) as (client, _):

        def ask(peer, forwarded=None):
            client._transport.client = (peer, 1)
            headers = {"Authorization": "Bearer no"} | ({"X-Forwarded-For": forwarded} if forwarded else {})
            return client.get("/metrics", headers=headers).status_code

        assert [ask("10.0.0.1", "192.0.2.1") for _ in range(25)][-1] == 429
        assert ask("10.0.0.1", "192.0.2.2") == 401, "another client of the same proxy"
        assert ask("::1", "192.0.2.1:4711, 10.3.3.3") == 429, "through two proxies"
        assert ask("10.0.0.1", "192.0.2.2, 192.0.2.1") == 429, "the header value of the client itself is ignored"
        assert ask("10.0.0.1") == 401
        assert ask("192.0.2.9", "192.0.2.1") == 401, "the header of a peer that is not a trusted proxy is ignored"
        assert ask("10.0.0.1", "[2001:db8::1]:443") == 401
        assert ask("10.0.0.1", "none") == 401


def test_without_tokens_only_a_loopback_name_is_served(tmp_path):
    with service(tmp_path) as (client, _):
        assert client.get("/metrics").status_code == 200
        assert client.get("/metrics", headers={"Host": "evil.example:8124"}).status_code == 421


def test_without_tokens_the_service_does_not_listen_beyond_loopback():
    with pytest.raises(ValidationError, match="web.tokens"):
        Web(host="0.0.0.0")
    assert Web(host="0.0.0.0", tokens=(token(),)).tokens


def test_secrets_come_from_files_and_the_environment(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("f" * 20 + "\n")
    monkeypatch.setenv("A_TOKEN", "e" * 20)
    access = AccessControl(Web(tokens=(WebToken(name="f", file=tmp_path / "secret"), WebToken(name="e", env="A_TOKEN"))), RATE)
    assert access.by_secret("f" * 20).name == "f"
    assert access.by_secret("e" * 20).name == "e"
    assert access.by_secret("") is None
    with pytest.raises(SettingsError, match="f: its file cannot be read"):
        AccessControl(Web(tokens=(WebToken(name="f", file=tmp_path / "none"),)), RATE)
    with pytest.raises(SettingsError, match="fewer than 16 characters"):
        AccessControl(Web(tokens=(WebToken(name="f", env="NO_SUCH_VARIABLE"),)), RATE)


def test_a_session_ends_and_cannot_be_made_up(monkeypatch):
    access = AccessControl(Web(tokens=(token("reader"),)), RATE)
    session = access.begin_session("reader")
    headers = {"cookie": f"alnnode_session={session}"}
    assert access.identify(headers).name == "reader"
    assert access.identify({"cookie": f"alnnode_session={session[:-1]}x"}) is None
    assert AccessControl(Web(tokens=(token("reader"),)), RATE).identify(headers) is None
    monkeypatch.setattr("alnnode.http.access.time.time", lambda: 1e12)
    assert access.identify(headers) is None


def test_after_logout_a_copy_of_the_cookie_is_refused(tmp_path):
    with service(tmp_path, web=Web(tokens=(token(),))) as (client, opened):
        client.post("/login", data={"token": "s" * 20}, follow_redirects=False)
        cookie = {"Cookie": f"alnnode_session={client.cookies['alnnode_session']}"}
        session = client.cookies["alnnode_session"]
        client.cookies.clear()
        assert client.get("/metrics", headers=cookie).status_code == 200
        form = {"csrf": opened.access.csrf_token(session)}
        assert client.post("/logout", data=form, headers=cookie, follow_redirects=False).status_code == 303
        assert client.get("/metrics", headers=cookie).status_code == 401


def test_a_damaged_database_is_503_without_its_message(tmp_path):
    with service(tmp_path) as (client, opened):
        opened.engine.dispose()
        path = tmp_path / "alnnode.db"
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        for url in ("/dicom-web/studies", "/dicom-web/workitems", "/", "/dicom-web/studies/1.2.3/metadata"):
            answer = client.get(url)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "30"), url
            assert "database" in answer.text
            assert "SELECT" not in answer.text
        assert client.get("/health/live").status_code == 200


def test_urls_in_responses_do_not_use_the_host_header(tmp_path):
    headers = {"Host": "evil.example:99", "Authorization": f"Bearer {'s' * 20}"}
    for url, expected in (("", "http://127.0.0.1:8124"), ("https://ai.example.org", "https://ai.example.org")):
        folder = tmp_path / str(len(url))
        with service(folder, web=Web(tokens=(token("a", "admin"),), public_url=url)) as (client, _):
            answer = stow(client, part10(ct(1)), headers=headers)
            assert answer.json()["00081190"]["Value"] == [f"{expected}/dicom-web/studies/{STUDY}"]
            assert "evil" not in answer.text
    with service(tmp_path / "local") as (client, _):
        answer = stow(client, part10(ct(1)), headers={"Host": "localhost:8124"})
        assert answer.json()["00081190"]["Value"] == [f"http://localhost:8124/dicom-web/studies/{STUDY}"]


def test_responses_have_security_headers(tmp_path):
    with service(tmp_path, web=Web(cors_origins=("https://viewer.example",))) as (client, _):
        answer = client.get("/metrics", headers={"Origin": "https://viewer.example"})
        assert answer.headers["access-control-allow-origin"] == "https://viewer.example"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in client.get("/metrics", headers={"Origin": "https://else.example"}).headers
