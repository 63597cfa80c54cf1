"""The login pages, the guard's cookie and the panel's door, as a browser's requests meet them. No sockets."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from asgi_lifespan import LifespanManager

from fieldstation.core.security import LOCAL, Role
from fieldstation.fleet.compose import control_config
from fieldstation.fleet.wire.control_server import ControlService
from fieldstation.web import PanelConfig, mount

HTML = {"accept": "text/html"}


class Site:
    """A control with a panel, and who has a token there."""

    def __init__(self, server):
        self.server = server
        self.ann = server.store.add_token("ann", Role.USER)
        self.vic = server.store.add_token("vic", Role.VIEWER)

    def browser(self, address="10.0.0.7"):
        transport = httpx.ASGITransport(self.server.asgi, client=(address, 50000))
        return httpx.AsyncClient(transport=transport, base_url="https://control.lab")

    async def log_in(self, browser, name, token, **fields):
        return await browser.post("/ui/login", data={"name": name, "token": token, **fields})

    async def audit(self):
        return [(row["action"], row["user"]) for row in await self.server.control.history(LOCAL, 50)]


@pytest.fixture
async def site(tmp_path):
    config = control_config(overrides={"database": f"sqlite:///{tmp_path / 'f.db'}", "require_tokens": True})
    server = ControlService(config)
    services = mount(server, None, PanelConfig(login_failures=3))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(LifespanManager(server.as_asgi()))
        for service in services:
            await service.start()
        site = Site(server)
        await server.control.refresh_tokens()
        yield site


async def test_who_is_not_logged_in_is_shown_the_login_and_comes_back_to_where_they_wanted(site):
    async with site.browser() as browser:
        turned = await browser.get("/ui/devices", headers=HTML)
        assert (turned.status_code, turned.headers["location"]) == (303, "/ui/login?next=/ui/devices")
        form = await browser.get("/ui/login?next=/ui/devices")
        assert form.status_code == 200
        assert 'name="token"' in form.text
        entered = await site.log_in(browser, "ann", site.ann, next="/ui/devices")
        assert (entered.status_code, entered.headers["location"]) == (303, "/ui/devices")
        cookie = entered.headers["set-cookie"].lower()
        for word in ("httponly", "samesite=strict", "secure", "path=/"):
            assert word in cookie
        assert (await browser.get("/api/fleet/devices")).status_code == 200
    assert ("login", "ann") in await site.audit()


async def test_programs_without_a_token_are_refused_plainly(site):
    async with site.browser() as browser:
        assert (await browser.get("/ui/")).status_code == 401
        assert (await browser.get("/ui/_nicegui_ws/socket.io/?EIO=4&transport=polling")).status_code == 401
        assert (await browser.get("/api/fleet/devices")).status_code == 401


@pytest.mark.parametrize(("name", "token"), [("ann", "fst_wrong"), ("vic", "ANN"), ("ann", ""), ("", "ANN")])
async def test_a_wrong_name_or_token_gives_one_sentence_and_no_cookie(site, name, token):
    async with site.browser() as browser:
        refused = await site.log_in(browser, name, site.ann if token == "ANN" else token)
        assert refused.status_code == 403
        assert "No user of that name has that token" in refused.text
        assert "set-cookie" not in refused.headers
        assert site.ann not in refused.text


async def test_after_some_wrong_tries_an_address_waits_even_with_the_right_token_and_others_do_not(site):
    async with site.browser() as browser, site.browser("10.0.0.8") as other:
        for _ in range(3):
            assert (await site.log_in(browser, "ann", "guess")).status_code == 403
        held = await site.log_in(browser, "ann", site.ann)
        assert held.status_code == 429
        assert 0 < int(held.headers["retry-after"]) <= 3
        assert (await site.log_in(other, "ann", site.ann)).status_code == 303


async def test_a_logout_ends_the_session_and_a_revoked_token_does_too(site):
    async with site.browser() as browser:
        await site.log_in(browser, "ann", site.ann)
        assert (await browser.get("/api/fleet/devices")).status_code == 200
        stolen = {"cookie": f"fieldstation_session={browser.cookies['fieldstation_session']}"}
        await browser.post("/ui/logout")
        assert (await browser.get("/api/fleet/devices", headers=stolen)).status_code == 401
        await site.log_in(browser, "ann", site.ann)
        site.server.store.revoke_tokens("ann")
        await site.server.control.refresh_tokens()
        assert (await browser.get("/api/fleet/devices")).status_code == 401


async def test_the_session_has_the_role_of_its_user(site):
    async with site.browser() as browser:
        await site.log_in(browser, "vic", site.vic)
        assert (await browser.post("/clear-workers")).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://control.lab:9999"},
    ],
)
async def test_a_foreign_page_can_neither_log_somebody_in_nor_act_with_their_cookie(site, headers):
    async with site.browser() as browser:
        entered = await browser.post("/ui/login", data={"name": "ann", "token": site.ann}, headers=headers)
        assert entered.status_code == 403
        await site.log_in(browser, "ann", site.ann)
        for path in ("/clear-workers", "/ui/logout", "/panel/end"):
            assert (await browser.post(path, headers=headers)).status_code == 403
        assert (await browser.get("/clear-workers", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example/", "/ui/\\evil", "/ui//evil.example", "/\r\nx"]
)
async def test_the_login_sends_nobody_to_another_site(site, wanted):
    async with site.browser() as browser:
        entered = await site.log_in(browser, "ann", site.ann, next=wanted)
        assert entered.headers["location"] == "/ui/"


async def test_a_huge_form_is_a_wrong_login_and_markup_in_fields_is_text(site):
    async with site.browser() as browser:
        assert (await site.log_in(browser, "x" * 100_000, "y")).status_code == 403
        page = await browser.get('/ui/login?next=/ui/"><script>alert(1)</script>')
        assert "<script" not in page.text
