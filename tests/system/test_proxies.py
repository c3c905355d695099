"""The reverse proxies of docs/phones.md, as they are printed but for ports, files and the certificate: phones get through
with the secret, others do not, and a server that is away is passed over.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from certificates import MAKE_AUTHORITY, issue, run
from debian import PATH, needs
from herd_process import PATIENCE_SECONDS, ROOT, ServerProcess, free_port, wait_until
from page_examples import blocks
from tracker_payloads import PAYLOADS
from web_wire import LINES, running_web_server
from websockets.sync.client import connect

pytestmark = [needs("caddy", "nginx", "openssl"), pytest.mark.xdist_group("proxies")]

NAME, SECRET = "herd.example", "/3f9c0d5e"
BLOCKS = {
    kind: [block.text for block in blocks(ROOT / "docs/phones.md") if block.kind == kind]
    for kind in ("nginx", "caddy", "toml")
}


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    with running_web_server(BLOCKS["toml"][0]) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate, which the proxies' own users may read."""
    made = tmp_path_factory.mktemp("proxies")
    run(MAKE_AUTHORITY, made)
    issue(made, NAME)
    run("openssl passwd -apr1 secret | sed s/^/jane:/ > htpasswd", made)
    return made


def nginx(folder: Path, servers: tuple[str, str], port: int, more: str = "") -> list[str]:
    whole, _, api = BLOCKS["nginx"]
    server = whole.replace("    location / {", f"{api}{more}\n    location / {{")
    for printed, here in (
        ("127.0.0.1:10300", servers[0]),
        ("127.0.0.1:10303", servers[1]),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        (f"/etc/ssl/{NAME}.crt", f"{folder}/var/tls/{NAME}.pem"),
        (f"/etc/ssl/{NAME}.key", f"{folder}/var/tls/{NAME}.key"),
        ("/etc/nginx/herd.htpasswd", f"{folder}/htpasswd"),
    ):
        assert printed in server
        server = server.replace(printed, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user}\ndaemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\n{paths}\n{server}\n}}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(file)]


def nginx_for_all(folder: Path, servers: tuple[str, str], port: int) -> list[str]:
    """With the page and the API behind the secret."""
    return nginx(folder, servers, port, BLOCKS["nginx"][1])


def caddy_for_all(folder: Path, servers: tuple[str, str], port: int) -> list[str]:
    return caddy(folder, servers, port, "@apps")


def caddy(folder: Path, servers: tuple[str, str], port: int, without: str = "") -> list[str]:
    [site] = BLOCKS["caddy"]
    if without:
        site = site.replace(
            f"{without} path_regexp ^/(owntracks|osmand|gpslogger|overland)/?$\n", "\n"
        ).replace(f" {without} ", " ")
        assert without not in site
    for printed, here in (
        (
            f"{NAME} {{",
            f"https://{NAME}:{port} {{\n\ttls {folder}/var/tls/{NAME}.pem {folder}/var/tls/{NAME}.key",
        ),
        ("127.0.0.1:10300", servers[0]),
        ("127.0.0.1:10303", servers[1]),
    ):
        assert printed in site
        site = site.replace(printed, here)
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n}}\n{site}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, clark: ServerProcess, folder: Path) -> Iterator[tuple[str, int]]:
    """A proxy in front of a server that is away, and of one that runs: its name and port."""
    with running_proxy(request.param, clark, folder) as found:
        yield found


@contextlib.contextmanager
def running_proxy(
    configured: Callable[[Path, tuple[str, str], int], list[str]], clark: ServerProcess, folder: Path
) -> Iterator[tuple[str, int]]:
    port = free_port()
    servers = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{clark.web_port}")
    name, *arguments = configured(folder, servers, port)
    program = shutil.which(name, path=PATH)
    assert program is not None
    said = folder / f"{name}.stderr"
    environ = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=environ
        )
    try:
        wait_until(lambda: listens(port, process, said), f"{name} listens")
        yield name, port
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def listens(port: int, process: subprocess.Popen[bytes], said: Path) -> bool:
    assert process.poll() is None, said.read_text()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


class ToTheProxy(httpx.HTTPTransport):
    """Finds the proxy by its name, from another address of this machine than the proxy's own."""

    def __init__(self, port: int, folder: Path) -> None:
        context = ssl.create_default_context(cafile=str(folder / "var/tls/authority.pem"))
        super().__init__(verify=context, local_address="127.0.0.2")
        self._port = port

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host="127.0.0.1", port=self._port)
        request.extensions["sni_hostname"] = NAME
        return super().handle_request(request)


@pytest.fixture
def phone(proxy: tuple[str, int], folder: Path) -> Iterator[httpx.Client]:
    with phone_at(proxy[1], folder) as client:
        yield client


@contextlib.contextmanager
def phone_at(port: int, folder: Path) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"https://{NAME}", transport=ToTheProxy(port, folder), timeout=PATIENCE_SECONDS
    ) as client:
        # An empty payload is consumed. Caddy finds out at its start that the first server is away.
        wait_until(lambda: client.get(f"{SECRET}/osmand").status_code == 200, "the proxy knows who is there")
        yield client


def test_each_app_gets_through_with_the_secret_and_the_log_has_its_address(
    clark: ServerProcess, phone: httpx.Client
) -> None:
    before = len(clark.events("command"))
    sent = {payload.app: payload for payload in reversed(PAYLOADS) if payload.lines}
    for payload in sent.values():
        headers = {"Content-Type": "text/plain", **payload.headers}
        target = f"{SECRET}/{payload.app}" + (f"?{payload.query}" if payload.query else "")
        if payload.user:
            headers["Authorization"] = httpx.BasicAuth(payload.user, "x")._auth_header
        answer = phone.request(payload.method, target, content=payload.body.encode(), headers=headers)
        assert (answer.status_code, answer.text) == (200, payload.answer), payload.name
        assert phone.post(f"{SECRET}/{payload.app}/").text == payload.answer, "with a slash behind it"
    reports = sum(len(payload.lines) for payload in sent.values())
    commands = wait_until(
        lambda: found if len(found := clark.events("command")[before:]) == reports else None, "all are logged"
    )
    assert {one["client"].rpartition(":")[0] for one in commands} == {"127.0.0.2"}
    assert {one["via"] for one in commands} == sent.keys()


@pytest.mark.parametrize(
    "path", ["/owntracks", "/00000000/owntracks", f"{SECRET}/v1/clients/a", f"{SECRET}/", SECRET, "/"]
)
def test_nobody_gets_through_without_the_secret_or_to_other_routes(phone: httpx.Client, path: str) -> None:
    assert phone.get(path).status_code == 404


def test_the_whole_api_is_behind_a_password_and_names_stay_as_they_are(
    clark: ServerProcess, proxy: tuple[str, int], folder: Path, phone: httpx.Client
) -> None:
    if proxy[0] != "nginx":
        return  # the page has it for nginx
    client = "/v1/clients/a%2Fb%20c%2520%F0%9F%93%B1"
    report = {"lat": "1", "lon": "2"}
    assert phone.put(client, json=report).status_code == 401
    jane = httpx.BasicAuth("jane", "secret")
    assert phone.put(client, json=report, auth=jane).json()["outcome"] == "stored"
    assert phone.get(client, auth=jane).json()["client"] == "a/b c%20📱"
    context = ssl.create_default_context(cafile=str(folder / "var/tls/authority.pem"))
    with connect(
        f"wss://{NAME}/v1/ws",
        sock=socket.create_connection(("127.0.0.1", proxy[1])),
        ssl=context,
        subprotocols=[LINES],  # type: ignore[list-item]
        additional_headers={"Authorization": jane._auth_header},
    ) as wire:
        wire.send("FOO")
        assert wire.recv(PATIENCE_SECONDS) == "? FOO\n"


@pytest.mark.parametrize("configured", [nginx_for_all, caddy_for_all], ids=["nginx", "caddy"])
def test_the_page_and_the_whole_api_may_be_behind_the_secret(
    clark: ServerProcess,
    folder: Path,
    configured: Callable[[Path, tuple[str, str], int], list[str]],
) -> None:
    with running_proxy(configured, clark, folder) as (_, port), phone_at(port, folder) as phone:
        page = phone.get(f"{SECRET}/")
        assert (page.status_code, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
        for client, name in (("a%2Fb%20c%2520", "a/b c%20"), ("%F0%9F%93%B1", "📱")):
            report = phone.put(f"{SECRET}/v1/clients/{client}", json={"lat": "1", "lon": "2"})
            assert report.json()["outcome"] == "stored"
            assert phone.get(f"{SECRET}/v1/clients/{client}").json()["client"] == name
        assert phone.get(f"{SECRET}/v1/clients/kiwi/places?limit=0").status_code == 404  # no such client
        assert [phone.get(path).status_code for path in ("/", f"{SECRET}x/", "/page/page.js")] == [
            404,
            404,
            404,
        ]
