import json
import shutil
import ssl
import stat
import subprocess
import threading

import pytest

from fieldstation.core import security
from fieldstation.core.errors import InsecureBindError
from fieldstation.core.security import LOCAL, Principal, Role, TokenFile, refuse_browser
from fieldstation.testing import Authority, program


def test_a_role_may_do_what_the_ones_below_it_may():
    ann = Principal("ann", Role.OPERATOR)
    security.authorize(ann, Role.USER, "reserve")
    security.authorize(ann, Role.OPERATOR, "reboot")
    with pytest.raises(security.ForbiddenError, match="ann has the role operator; tokens needs the role admin"):
        security.authorize(ann, Role.ADMIN, "tokens")
    security.authorize(LOCAL, Role.ADMIN, "anything")


@pytest.fixture
def tokens(tmp_path):
    return TokenFile(tmp_path / "etc" / "tokens.json")


def test_a_token_is_found_by_its_hash_and_stored_nowhere(tokens):
    token = tokens.add("ann", Role.USER)
    assert tokens.lookup(token) == Principal("ann", Role.USER)
    assert tokens.lookup(token + "x") is None
    assert token not in tokens.path.read_text()
    assert security.hash_token(token) in tokens.path.read_text()


def test_tokens_are_long_random_and_recognisable_in_logs():
    tokens = {security.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("fst_") and len(token) >= 36 for token in tokens)


def test_only_the_owner_may_read_the_token_file(tokens):
    tokens.add("ann", Role.USER)
    tokens.path.chmod(0o644)
    tokens.add("bob", Role.USER)
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600


def test_a_server_sees_a_revocation_without_a_restart(tokens):
    server = TokenFile(tokens.path)
    token = tokens.add("ann", Role.USER)
    other = tokens.add("bob", Role.ADMIN)
    assert server.lookup(token) == Principal("ann", Role.USER)
    assert tokens.revoke("ann") == 1
    assert tokens.revoke("ann") == 0
    assert server.lookup(token) is None
    assert server.users() == [Principal("bob", Role.ADMIN)]
    assert len(server) == 1
    tokens.path.unlink()
    assert server.lookup(other) is None


def test_tokens_created_at_the_same_moment_are_all_kept(tokens):
    files = [TokenFile(tokens.path) for _ in range(8)]
    threads = [threading.Thread(target=file.add, args=(f"user{n}", Role.USER)) for n, file in enumerate(files)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(principal.user for principal in tokens.users()) == [f"user{n}" for n in range(8)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"x": 1}', '{"x": {"user": "a"}}', '{"x": {"user": "a", "role": "king"}}', "\x00"]
)
def test_a_broken_token_file_lets_nobody_in_and_is_named(tokens, text):
    tokens.path.parent.mkdir()
    tokens.path.write_text(text)
    with pytest.raises(security.TokenFileError, match=r"The token file .*tokens.json cannot be used"):
        tokens.lookup("fst_x")
    with pytest.raises(security.TokenFileError):
        tokens.add("ann", Role.USER)
    assert tokens.path.read_text() == text


def test_a_token_file_in_an_impossible_place_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    tokens = TokenFile(tmp_path / "file" / "tokens.json")
    for attempt in (lambda: tokens.add("ann", Role.USER), lambda: tokens.lookup("x"), lambda: len(tokens)):
        with pytest.raises(security.TokenFileError):
            attempt()


@pytest.mark.parametrize("user", ["", "a:b", "a@b", "a b", "a/b", "é", "a\n", "x" * 65])
def test_a_user_name_that_cannot_stand_in_an_address_is_refused(tokens, user):
    with pytest.raises(security.UserNameError):
        tokens.add(user, Role.USER)
    assert not tokens.path.exists()


def test_a_client_takes_its_token_from_a_file_or_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text("fst_file\nrest\n")
    environ = {"FIELDSTATION_TOKEN": " fst_env\n"}
    assert security.own_token(file, environ) == "fst_file"
    assert security.own_token(None, environ) == "fst_env"
    assert security.own_token(None, {}) is None
    file.write_text("\n")
    for path in (file, tmp_path / "absent"):
        with pytest.raises(security.TokenFileError):
            security.own_token(path, environ)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_a_server_on_loopback_needs_no_tokens(host):
    security.check_bind(host, has_tokens=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "bench.lab", "localhost.evil.example"])
def test_any_other_address_needs_tokens_or_a_loud_word(host):
    with pytest.raises(InsecureBindError, match="fieldstation tokens create"):
        security.check_bind(host, has_tokens=False, insecure=False)
    security.check_bind(host, has_tokens=True, insecure=False)
    security.check_bind(host, has_tokens=False, insecure=True)


ALLOWED = ["bench.lab"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "127.0.0.1:8080"},
        {"host": "localhost:8080"},
        {"host": "[::1]:8080"},
        {"host": "192.168.1.4:8080"},
        {"host": "bench.lab:8080"},
        {"host": "BENCH.lab"},
        {"host": "bench.lab:8080", "origin": "http://bench.lab:8080", "sec-fetch-site": "same-origin"},
        {"host": "bench.lab:80", "origin": "http://bench.lab"},
        {"host": "bench.lab", "origin": "https://bench.lab:8443"},
        {"host": "localhost:8080", "sec-fetch-site": "none"},
    ],
)
def test_programs_and_our_own_pages_get_in(headers):
    assert refuse_browser(headers, ALLOWED) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"host": "localhost", "sec-fetch-site": "cross-site"}, "another web site"),
        ({"host": "localhost:8080", "sec-fetch-site": "same-site"}, "another web site"),
        ({"host": "evil.example:8080"}, "--allow-host"),
        ({"host": "localhost.evil.example"}, "--allow-host"),
        ({"host": "localhost:8080", "origin": "https://evil.example"}, "a page of"),
        ({"host": "localhost:8080", "origin": "http://localhost:9999"}, "a page of"),
        ({"host": "localhost:8080", "origin": "null"}, "a page of"),
        ({"origin": "http://evil.example"}, "a page of"),
        ({"host": "localhost", "origin": "http://[broken"}, "a page of"),
        ({"host": "[broken"}, "not an address"),
        ({"host": "localhost:port"}, "not an address"),
    ],
)
def test_requests_that_a_foreign_page_may_have_sent_are_refused_with_the_reason(headers, reason):
    assert reason in (refuse_browser(headers, ALLOWED) or "it was let in")


def test_a_star_allows_any_host_name_but_no_foreign_page():
    assert refuse_browser({"host": "any.example"}, ["*"]) is None
    assert refuse_browser({"host": "any.example", "origin": "http://evil.example"}, ["*"]) is not None


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A CA, and a certificate and key for localhost that it signed; another CA."""
    folder = tmp_path_factory.mktemp("pki")
    Authority(folder).issue("a")
    shutil.copy(Authority(folder / "other").certificate, folder / "other.crt")
    locking = "ec -in a.key -aes256 -passout pass:x -out locked.key"
    subprocess.run([program("openssl"), *locking.split()], cwd=folder, check=True, capture_output=True)
    return folder


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> str | None:
    """Let the two talk in memory until both are done; returns the TLS version."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    sides[1].write(b"x")
    assert sides[0].read(1) == b"x"
    return sides[0].version()


@pytest.mark.needs("openssl")
def test_client_and_server_meet_over_tls_with_certificates_on_both_sides(pki):
    server = security.server_tls(pki / "a.crt", pki / "a.key", client_ca=pki / "ca.crt")
    client = security.client_tls(pki / "ca.crt", pki / "a.crt", pki / "a.key")
    assert shake_hands(server, client) == "TLSv1.3"


@pytest.mark.needs("openssl")
def test_strangers_and_wrong_names_are_refused(pki):
    server = security.server_tls(pki / "a.crt", pki / "a.key", client_ca=pki / "ca.crt")
    with pytest.raises(ssl.SSLError, match="certificate"):
        shake_hands(server, security.client_tls(pki / "ca.crt"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, security.client_tls(pki / "other.crt"))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname"):
        shake_hands(server, security.client_tls(pki / "ca.crt", pki / "a.crt", pki / "a.key"), name="bench.lab")


@pytest.mark.needs("openssl")
def test_old_protocols_are_not_spoken(pki):
    for context in (security.server_tls(pki / "a.crt", pki / "a.key"), security.client_tls(pki / "ca.crt")):
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.needs("openssl")
def test_files_that_cannot_serve_are_named(pki):
    for certificate, key in [("absent.crt", "a.key"), ("a.key", "a.key"), ("a.crt", "ca.key"), ("a.crt", "locked.key")]:
        with pytest.raises(security.TlsFileError, match=rf"TLS cannot start with .*{certificate}.*{key}"):
            security.server_tls(pki / certificate, pki / key)
    with pytest.raises(security.TlsFileError, match=r"absent\.crt"):
        security.client_tls(pki / "absent.crt")


def test_the_file_format_is_hash_to_user_and_role(tokens):
    token = tokens.add("ann", Role.OPERATOR)
    assert json.loads(tokens.path.read_text()) == {security.hash_token(token): {"user": "ann", "role": "operator"}}
