"""The app starts whatever proxies the environment names, and the Hub is reached through them."""

import os

import httpx
import pytest
from huggingface_hub.utils import close_session, get_session

from trainer.errors import UserError
from ui.server.proxies import reach_itself

PROXY = "http://127.0.0.1:9"


@pytest.fixture
def environment(monkeypatch):
    """A function that sets the variables of proxies, and restores them at the end of the test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "GRADIO_SERVER_NAME"):
        for each in (name, name.upper()):
            monkeypatch.setenv(each, "")  # remembers it, also for what `reach_itself` sets
            monkeypatch.delenv(each)
    close_session()
    yield lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]
    close_session()


def goes_through_a_proxy(client, url):
    """Whether a client, of either of the two HTTP libraries, sends a request through a proxy."""
    return client._transport_for_url(type(client.build_request("GET", url).url)(url)) is not client._transport


@pytest.mark.parametrize(
    "excluded", ["", ".example, 10.0.0.0/8", "localhost,[::1]", "fd00::/8,::1/128", "📈", "\udcff", " , "]
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_only_the_app_itself_is_excluded(environment, variable, excluded):
    """Also if NO_PROXY has what Gradio's HTTP client cannot read; what it can stays excluded."""
    environment(**{variable: PROXY if "HTTP" in variable else "socks5://127.0.0.1:9"}, NO_PROXY=excluded)
    reach_itself()
    for client in (httpx.Client(), get_session()):
        assert goes_through_a_proxy(client, "https://huggingface.co/x")
        assert not goes_through_a_proxy(client, "https://127.0.0.1:7860/")
        assert not goes_through_a_proxy(client, "https://localhost/")
        assert goes_through_a_proxy(client, "https://one.example/") is ("example" not in excluded)


@pytest.mark.parametrize("name", ["[::1]", "::1", "0.0.0.0", "lab.internal"])
def test_the_name_of_the_server_is_excluded(environment, name):
    """Gradio takes an address of IPv6 with or without brackets."""
    environment(GRADIO_SERVER_NAME=name, http_proxy=PROXY, no_proxy="other")
    reach_itself()
    host = f"[{name}]" if name == "::1" else name
    assert not goes_through_a_proxy(httpx.Client(), f"http://{host}:7860/")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"]


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1080", "::::", "http://[::1", "ftp://proxy:1"])
def test_a_proxy_that_cannot_be_used_is_a_sentence(environment, proxy):
    """Such as the address that some desktops set for SOCKS."""
    environment(ALL_PROXY=proxy)
    with pytest.raises(UserError, match=r"The proxy in HTTP_PROXY, .* cannot be used \("):
        reach_itself()
