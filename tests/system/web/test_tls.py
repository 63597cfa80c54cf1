"""Control, worker, client and panel over TLS, with a certificate of an authority of one's own (`SSL_CERT_FILE`)."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest

from fieldstation.core.security import Role
from fieldstation.fleet.store import Store
from fieldstation.testing import Authority, running, wait_for

pytestmark = [pytest.mark.needs("openssl"), pytest.mark.timeout(180)]


@pytest.fixture
def certificate(tmp_path):
    ca = Authority(tmp_path / "ca")
    certificate, key = ca.issue("lab")
    return ca.certificate, ("--tls-certificate", certificate, "--tls-key", key)


class KeepOut(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def answer_of(opener, request):
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def test_everything_speaks_tls_and_a_login_is_kept_to_it(tmp_path, certificate):
    trusted, certificate = certificate
    database = f"sqlite:///{tmp_path / 'fleet.db'}"
    store = Store(database)
    store.open()
    tokens = {"ann": store.add_token("ann", Role.USER), "bench": store.add_token("bench", Role.OPERATOR)}
    store.close()
    trust = {"SSL_CERT_FILE": str(trusted)}
    control = ("fieldstation", "fleet", "control", "--port", "0", "--database", database, "--require-tokens")
    with running(*control, *certificate, env=trust, deadline_s=60) as server:
        assert server.url.startswith("https://")
        worker = ("fieldstation", "fleet", "worker", "--control", server.url, "--name", "bench", "--port", "0")
        env = {**trust, "FIELDSTATION_TOKEN": tokens["bench"]}
        with running(*worker, *certificate, "--simulate", "1", "--dir", tmp_path / "w", env=env, deadline_s=60):
            context = ssl.create_default_context(cafile=trusted)
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), KeepOut)
            request = urllib.request.Request(server.url + "/available")
            request.add_header("Authorization", f"Bearer {tokens['ann']}")
            wait_for(lambda: answer_of(opener, request)["amount"] == 1, 60, every_s=0.2)
            (tmp_path / "circuit.bin").write_bytes(bytes(104_090))
            done = subprocess.run(
                [sys.executable, "-m", "fieldstation", "fleet", "evaluate", "--control", server.url, "--json",
                 tmp_path / "circuit.bin"],
                env={**os.environ, **trust, "FIELDSTATION_TOKEN": tokens["ann"]},
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            form = urllib.parse.urlencode({"name": "ann", "token": tokens["ann"]}).encode()
            with pytest.raises(urllib.error.HTTPError) as sent_on:
                opener.open(server.url + "/ui/login", form, timeout=30)
            assert sent_on.value.code == 303
            assert "secure" in sent_on.value.headers["set-cookie"].lower()
            sent_on.value.close()
        assert not [token for token in tokens.values() if token in server.output]
