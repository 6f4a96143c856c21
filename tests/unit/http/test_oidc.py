"""Tokens of an OpenID Connect issuer, verified with keys from a server on loopback; and the limit of the request rate."""

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
from alnnode.http import oidc
from alnnode.http.access import AccessControl
from alnnode.http.oidc import OidcVerifier
from alnnode.http.rate_limits import RequestRateLimit
from alnnode.settings import Internal, Oidc, Web, WebToken

ISSUER, AUDIENCE = "https://login.example.org", "alnnode"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
OTHER = RSAKey.generate_key(2048, {"kid": "one"})  # another key with the same key id
LATER = ECKey.generate_key("P-256", {"kid": "two"})


@pytest.fixture
def issuer():
    """The URL of a key set, the keys in it, and the requests for it."""
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
    """The claims of a valid token with the header of another algorithm."""
    return f"{spelt(json.dumps({'alg': alg, 'kid': 'one'}).encode())}.{token().split('.')[1]}"


def unsigned():
    return f"{headed('none')}."


def confused():
    """A token whose HMAC uses the public key as the secret."""
    content = headed("HS256")
    return f"{content}.{spelt(hmac.digest(KEY.as_pem(private=False), content.encode(), 'sha256'))}"


def test_a_valid_token_is_accepted_with_its_roles(issuer) -> None:
    url, _, asked = issuer
    verifier = OidcVerifier(settings(url))
    assert verifier.verify(token()) == ("pacs", {"read"})
    assert verifier.verify(token(aud=["another", AUDIENCE], roles="send openid", azp=None)) == ("a-person", {"send"})
    assert verifier.verify(token(roles=["nurse"])) == ("pacs", frozenset())
    assert verifier.verify(token(azp="app of a long/name & more")) == ("app_of_a_long_na", {"read"})
    assert len(asked) == 1


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda: token(exp=int(time.time()) - 60), id="expired"),
        pytest.param(lambda: token(exp=None), id="no expiry"),
        pytest.param(lambda: token(nbf=int(time.time()) + 600), id="not yet"),
        pytest.param(lambda: token(aud="another"), id="wrong audience"),
        pytest.param(lambda: token(aud=None), id="no audience"),
        pytest.param(lambda: token(iss="https://evil.example"), id="wrong issuer"),
        pytest.param(unsigned, id="alg none"),
        pytest.param(confused, id="signed with the public key"),
        pytest.param(lambda: token(OTHER), id="another key with that id"),
        pytest.param(lambda: token(kid="unknown"), id="unknown kid"),
        pytest.param(lambda: token(kid=None), id="no kid"),
        pytest.param(lambda: token()[:-4] + "AAAA", id="altered"),
        pytest.param(lambda: "a.b.c", id="no token"),
        pytest.param(lambda: token() + "." + "x" * 20_000, id="too long"),
    ],
)
def test_an_invalid_token_is_refused(issuer, bad) -> None:
    assert OidcVerifier(settings(issuer[0])).verify(bad()) is None


def test_new_keys_are_fetched_at_most_once_per_interval(issuer, monkeypatch) -> None:
    url, keys, asked = issuer
    verifier = OidcVerifier(settings(url))
    assert verifier.verify(token()) is not None
    for number in range(20):
        assert verifier.verify(token(LATER, "ES256", f"guess-{number}")) is None
    assert len(asked) == 1
    keys.append(LATER)
    monkeypatch.setattr(oidc, "REFRESH", 0.0)
    assert verifier.verify(token(LATER, "ES256", "two")) == ("pacs", {"read"})
    assert len(asked) == 2


def test_keys_from_a_file_and_roles_from_a_nested_claim(tmp_path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        OidcVerifier(settings(tmp_path / "keys.json"))
    (tmp_path / "keys.json").write_text(json.dumps(KeySet([KEY]).as_dict(private=False)))
    mapped = settings(tmp_path / "keys.json", roles_claim="realm.roles", roles={"radiology": "read", "boss": "admin"})
    verifier = OidcVerifier(mapped)
    assert verifier.verify(token(realm={"roles": ["radiology", "send"]})) == ("pacs", {"read"})
    assert verifier.verify(token(realm=["boss"])) == ("pacs", frozenset())
    with pytest.raises(ValidationError):
        settings("http://login.example.org/keys")


def test_the_service_accepts_tokens_of_the_issuer(issuer, tmp_path) -> None:
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


def test_a_client_that_exceeds_the_request_rate_is_refused(tmp_path, monkeypatch) -> None:
    with service(tmp_path, internal=Internal(web_request_rate=1)) as (client, _):
        answers = [client.get("/health/live") for _ in range(15)]
        assert [answer.status_code for answer in answers[:10]] == [200] * 10
        assert (answers[-1].status_code, answers[-1].headers["retry-after"]) == (429, "1")
    now = 100.0
    monkeypatch.setattr("alnnode.http.rate_limits.time.monotonic", lambda: now)
    rate = RequestRateLimit(2)
    assert [rate.allows("a") for _ in range(21)] == [True] * 20 + [False]
    assert rate.allows("b")
    now += 0.5
    assert [rate.allows("a") for _ in range(2)] == [True, False]


def test_a_token_of_a_known_key_does_not_wait_for_a_request_for_keys(issuer) -> None:
    verifier = OidcVerifier(settings(issuer[0]))
    assert verifier.verify(token())
    found = []
    with verifier._lock:  # as during a request for keys
        checker = Thread(target=lambda: found.append(verifier.verify(token())), daemon=True)
        checker.start()
        checker.join(10)
        assert found


def test_a_name_of_the_issuer_never_equals_one_of_the_settings(issuer):
    local = (
        WebToken(name="CT1", sha256="0" * 64),
        WebToken(name="oidc_PACS2", sha256="1" * 64),
        WebToken(name="PACS2", sha256="2" * 64),
    )
    access = AccessControl(Web(oidc=settings(issuer[0]), tokens=local), 500)

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
