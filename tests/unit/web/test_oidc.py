"""Tokens of an OpenID Connect issuer, signed here and checked against keys that a server on loopback gives; and the rate of requests."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect
from web_service import service

from alnnode.errors import SettingsError
from alnnode.settings import Internal, Oidc, Web, WebToken
from alnnode.web import oidc
from alnnode.web.access import Access, Rate
from alnnode.web.oidc import Verifier

ISSUER, AUDIENCE = "https://login.example.org", "alnnode"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
OTHER = RSAKey.generate_key(2048, {"kid": "one"})  # of somebody who knows the key's name
LATER = ECKey.generate_key("P-256", {"kid": "two"})


@pytest.fixture
def issuer():
    """The URL of a key set, the keys in it, and how often it was asked for."""
    keys, asked = [KEY], []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append(self.path)
            data = json.dumps(KeySet(keys).as_dict(private=False)).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}/keys", keys, asked
    served.shutdown()
    served.server_close()


def settings(jwks, **more):
    return Oidc(issuer=ISSUER, audience=AUDIENCE, jwks=str(jwks), **more)


def token(key=KEY, alg="RS256", kid="one", **changes):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 300, "azp": "pacs", "sub": "a-person", "roles": ["read"], **changes}
    header = {"alg": alg, **({"kid": kid} if kid else {})}
    return jwt.encode(header, {name: value for name, value in claims.items() if value is not None}, key, algorithms=[alg])


def spelt(data):
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def headed(alg):
    """The claims of a good token under a header of another algorithm."""
    return f"{spelt(json.dumps({'alg': alg, 'kid': 'one'}).encode())}.{token().split('.')[1]}"


def unsigned():
    return f"{headed('none')}."


def confused():
    """Signed with the public key, as if it were a secret that both sides know."""
    content = headed("HS256")
    return f"{content}.{spelt(hmac.digest(KEY.as_pem(private=False), content.encode(), 'sha256'))}"


def test_a_good_token_is_taken_with_its_roles(issuer) -> None:
    url, _, asked = issuer
    verifier = Verifier(settings(url))
    assert verifier.check(token()) == ("pacs", {"read"})
    assert verifier.check(token(aud=["another", AUDIENCE], roles="send openid", azp=None)) == ("a-person", {"send"})
    assert verifier.check(token(roles=["nurse"])) == ("pacs", frozenset())
    assert verifier.check(token(azp="app of a long/name & more")) == ("app_of_a_long_na", {"read"})
    assert len(asked) == 1


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda: token(exp=int(time.time()) - 60), id="expired"),
        pytest.param(lambda: token(exp=None), id="without an end"),
        pytest.param(lambda: token(nbf=int(time.time()) + 600), id="not yet"),
        pytest.param(lambda: token(aud="another"), id="wrong audience"),
        pytest.param(lambda: token(aud=None), id="no audience"),
        pytest.param(lambda: token(iss="https://evil.example"), id="wrong issuer"),
        pytest.param(unsigned, id="alg none"),
        pytest.param(confused, id="signed with the public key"),
        pytest.param(lambda: token(OTHER), id="another key of that name"),
        pytest.param(lambda: token(kid="unknown"), id="unknown kid"),
        pytest.param(lambda: token(kid=None), id="no kid"),
        pytest.param(lambda: token()[:-4] + "AAAA", id="altered"),
        pytest.param(lambda: "a.b.c", id="no token"),
        pytest.param(lambda: token() + "." + "x" * 20_000, id="too long"),
    ],
)
def test_a_token_that_is_not_good_is_refused(issuer, bad) -> None:
    assert Verifier(settings(issuer[0])).check(bad()) is None


def test_new_keys_are_found_but_not_by_asking_all_the_time(issuer, monkeypatch) -> None:
    url, keys, asked = issuer
    verifier = Verifier(settings(url))
    assert verifier.check(token()) is not None
    for number in range(20):
        assert verifier.check(token(LATER, "ES256", f"guess-{number}")) is None
    assert len(asked) == 1
    keys.append(LATER)
    monkeypatch.setattr(oidc, "REFRESH", 0.0)
    assert verifier.check(token(LATER, "ES256", "two")) == ("pacs", {"read"})
    assert len(asked) == 2


def test_keys_may_lie_in_a_file_and_roles_anywhere(tmp_path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        Verifier(settings(tmp_path / "keys.json"))
    (tmp_path / "keys.json").write_text(json.dumps(KeySet([KEY]).as_dict(private=False)))
    mapped = settings(tmp_path / "keys.json", roles_claim="realm.roles", roles={"radiology": "read", "boss": "admin"})
    verifier = Verifier(mapped)
    assert verifier.check(token(realm={"roles": ["radiology", "send"]})) == ("pacs", {"read"})
    assert verifier.check(token(realm=["boss"])) == ("pacs", frozenset())
    with pytest.raises(ValidationError):
        settings("http://login.example.org/keys")


def test_the_service_takes_them(issuer, tmp_path) -> None:
    with service(tmp_path, web=Web(oidc=settings(issuer[0]))) as (client, _):

        def ask(path, given, method="GET"):
            return client.request(method, path, headers={"Authorization": f"Bearer {given}"}).status_code

        assert client.get("/metrics").status_code == 401
        assert [ask("/metrics", token(**roles)) for roles in ({}, {"roles": ["send"]}, {"roles": ["admin"]})] == [200, 403, 200]
        assert ask("/dicom-web/studies", token(), "POST") == 403
        assert ask("/dicom-web/studies", token(roles=["send"]), "POST") == 415
        assert ask("/metrics", token(aud="another")) == 401
        assert client.post("/login", data={"token": token(roles=["admin"])}).status_code != 303, (
            "a login begins with [[web.tokens]]"
        )
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://127.0.0.1:8124/dicom-web/subscribers/A"):
            pass
        headers = {"Authorization": f"Bearer {token()}"}
        with client.websocket_connect("ws://127.0.0.1:8124/dicom-web/subscribers/A", headers=headers):
            pass


def test_a_client_that_asks_too_often_has_to_wait(tmp_path, monkeypatch) -> None:
    with service(tmp_path, internal=Internal(web_request_rate=1)) as (client, _):
        answers = [client.get("/health/live") for _ in range(15)]
        assert [answer.status_code for answer in answers[:10]] == [200] * 10
        assert (answers[-1].status_code, answers[-1].headers["retry-after"]) == (429, "1")
    now = 100.0
    monkeypatch.setattr("alnnode.web.access.time.monotonic", lambda: now)
    rate = Rate(2)
    assert [rate.allows("a") for _ in range(21)] == [True] * 20 + [False]
    assert rate.allows("b")
    now += 0.5
    assert [rate.allows("a") for _ in range(2)] == [True, False]


def test_a_known_key_is_not_waited_for_while_the_issuer_is_asked_for_another(issuer) -> None:
    verifier = Verifier(settings(issuer[0]))
    assert verifier.check(token())
    found = []
    with verifier._lock:  # as who asks the issuer holds it
        checker = Thread(target=lambda: found.append(verifier.check(token())), daemon=True)
        checker.start()
        checker.join(10)
        assert found


def test_a_token_of_the_issuer_cannot_pass_for_one_of_the_settings(issuer):
    local = (
        WebToken(name="CT1", sha256="0" * 64),
        WebToken(name="oidc_PACS2", sha256="1" * 64),
        WebToken(name="PACS2", sha256="2" * 64),
    )
    access = Access(Web(oidc=settings(issuer[0]), tokens=local), 500)

    def name(azp):
        found = access.identify({"authorization": f"Bearer {token(azp=azp)}"})
        return found and found.name

    assert [name("pacs"), name("CT1"), name("ct1"), name("STOW"), name("PACS2")] == [
        "pacs",
        "oidc_CT1",
        "oidc_ct1",
        "oidc_STOW",
        None,
    ]
