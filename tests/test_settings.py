"""Settings: the file, then the environment; every mistake is named at once, with what is allowed, without secrets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from brokerd.config import BrokerConfig
from brokerd.config import load as load_broker
from brokerd.masking import masked
from brokerd.settings import SettingsError, build
from brokerd.settings_text import effective
from chatd.config import ChatConfig, document, load, read


def _problems(text: str = "", **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        build(ChatConfig, "CHATD", environ, text, "chatd.toml")
    return [str(problem) for problem in caught.value.problems]


def test_without_file_and_environment_the_defaults_are_those_that_make_run_promises() -> None:
    config = load([], {})
    assert (config.tcp.host, config.tcp.port) == ("127.0.0.1", 7400)
    assert (config.http.host, config.http.port) == ("127.0.0.1", 7480)
    assert config.mode == "embedded"
    assert config.passwd_file == config.data_dir / "passwd"


def test_the_short_variables_that_others_script_against_work() -> None:
    environ = {
        "CHATD_TCP_PORT": "1",
        "CHATD_HTTP_PORT": "2",
        "CHATD_DATA_DIR": "d",
        "CHATD_REDIS_URL": "redis://r",
        "CHATD_RABBIT_URL": "amqp://a",
        "CHATD_SHARDS": "3",
        "CHATD_NODE": "n1",
        "CHATD_MODE": "cluster",
    }
    config = load([], environ)
    assert (config.tcp.port, config.http.port, config.data_dir, config.shards) == (1, 2, Path("d"), 3)
    assert (config.redis.url, config.rabbit.url, config.node, config.mode) == ("redis://r", "amqp://a", "n1", "cluster")
    broker = load_broker(
        [], {"BROKERD_REDIS_URL": "redis://r", "BROKERD_RABBIT_URL": "amqp://a", "BROKERD_SHARDS": "3"}
    )
    assert (broker.redis.url, broker.rabbit.url, broker.shards) == ("redis://r", "amqp://a", 3)


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "chatd.toml"
    file.write_text('node = "a"\n[tcp]\nport = 1\nhost = "::1"\n[ws]\nallowed_origins = ["https://x.org"]\n')
    config = load(["--config", str(file)], {"CHATD_TCP_PORT": "2"})
    assert (config.node, config.tcp.host, config.tcp.port) == ("a", "::1", 2)
    assert config.ws.allowed_origins == ("https://x.org",)
    assert load([], {"CHATD_CONFIG": str(file)}).tcp.port == 1


def test_an_empty_variable_unsets_what_may_be_not_set() -> None:
    text = '[auth]\nissuer = "me"\n'
    assert build(ChatConfig, "CHATD", {}, text).auth.issuer == "me"
    assert build(ChatConfig, "CHATD", {"CHATD_AUTH_ISSUER": ""}, text).auth.issuer is None


def test_an_error_names_the_key_the_line_the_value_and_what_is_allowed() -> None:
    assert _problems('node = "a"\n\n[tcp]\nport = 70000\n') == [
        "tcp.port (chatd.toml line 4): 70000 was given, allowed is a whole number 0 to 65_535"
    ]
    assert _problems(CHATD_TCP_PORT="http") == [
        "tcp.port (CHATD_TCP_PORT): 'http' was given, allowed is a whole number 0 to 65_535"
    ]


def test_an_unknown_key_or_variable_is_refused_with_a_suggestion() -> None:
    assert _problems("[tcp]\nprot = 1\n") == [
        "tcp.prot (chatd.toml line 2): there is no such key; did you mean tcp.port?"
    ]
    assert _problems("[tpc]\nport = 1\n") == ["tpc (chatd.toml line 1): there is no such key"]
    assert _problems(CHATD_TCP_PROT="1") == [
        "CHATD_TCP_PROT (environment): there is no such variable; did you mean CHATD_TCP_PORT?"
    ]


def test_what_kubernetes_injects_for_a_service_of_our_name_is_no_mistake() -> None:
    build(ChatConfig, "CHATD", {"CHATD_SERVICE_HOST": "10.0.0.1", "CHATD_PORT_7400_TCP_ADDR": "x", "CHATD_PORT": "y"})


def test_all_problems_are_reported_at_once() -> None:
    problems = _problems('mode = "clustr"\nshards = 0\n[limits]\nkeepalive_s = "x"\n', CHATD_LOG_LEVEL="loud")
    assert [line.split()[0] for line in problems] == ["mode", "shards", "limits.keepalive_s", "log.level"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[limits]\noutbox_bytes_max = 65536\n", "must be larger than limits.body_bytes_max"),
        ("[limits]\nconnections_max = 10\n", "must not be larger than limits.connections_max"),
        ("[tcp]\nport = 7480\n", "7480 is tcp.port as well"),
        ('[tcp]\ntls_cert = "/no/such"\n', "name both or none"),
        ('[http]\ntls_cert = "/no/such"\ntls_key = "/no/such"\n', "there is no file"),
    ],
)
def test_rules_between_keys_are_kept(text: str, says: str) -> None:
    assert any(says in line for line in _problems(text))


def test_a_rule_between_keys_is_not_asked_about_a_value_that_is_wrong_by_itself() -> None:
    assert len(_problems("[limits]\nbody_bytes_max = -1\noutbox_bytes_max = 16384\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "shards = true",
        "shards = 8.0",
        'shards = "8"',
        "lease_s = nan",
        "lease_s = true",
        'node = "Ann"',
        'node = "a\\nb"',
        "node = 1",
        'data_dir = ""',
        'prefix = "a:b"',
        "[ws]\nallowed_origins = 'https://x.org'",
        "[ws]\nallowed_origins = ['x.org/path']",
        "tcp = 1",
        "[tcp.port]\nx = 1",
        "[log]\nlevel = 'INFO'",
        "[redis]\nurl = 'http://x'",
    ],
)
def test_a_value_of_another_type_or_form_is_refused(text: str) -> None:
    assert len(_problems(text)) == 1


@pytest.mark.parametrize("value", ["", " ", "1.5", "0x10", "-1", "9" * 5000, "\x00"])
def test_a_number_in_the_environment_is_only_a_number(value: str) -> None:
    (line,) = _problems(CHATD_SHARDS=value)
    assert len(line) < 200


def test_a_file_that_is_no_toml_or_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    assert "is not TOML" in _problems("[tcp\n")[0]
    with pytest.raises(SettingsError, match="can not be read"):
        read(str(tmp_path / "none.toml"), {})
    (tmp_path / "bin").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="UTF-8"):
        read(str(tmp_path / "bin"), {})


def test_a_bad_setting_ends_the_process_with_2_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load([], {"CHATD_TCP_PORT": "x", "CHATD_SHARDS": "0"})
    assert caught.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert [line[:16] for line in told] == ["chatd: shards (C", "chatd: tcp.port "]


def test_check_config_says_ok_and_prints_what_is_in_effect_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(["--check-config"], {"CHATD_REDIS_URL": "redis://u:hush@h:1/0", "CHATD_TCP_PORT": "9"})
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("# ok\n")
    assert "port = 9" in out
    assert "hush" not in out
    assert build(ChatConfig, "CHATD", {}, out) != load([], {}), "what is printed can be read again"


def test_secrets_are_in_no_error_and_no_repr() -> None:
    told = _problems(CHATD_REDIS_URL="redis//u:hush@h", CHATD_RABBIT_URL="amqp://u:hush@h:port/")
    assert len(told) == 2
    assert "hush" not in "".join(told)
    config = load([], {"CHATD_REDIS_URL": "redis://u:hush@h"})
    assert "hush" not in repr(config) + effective(config)


@pytest.mark.parametrize(
    "url", ["amqp://u:hush@h:1/v", "redis://:hu@sh@h", "x redis://h?a=hush y", "rediss://u:hush@[::1]:1/0?b=hush@c"]
)
def test_the_password_of_a_url_is_masked_and_the_host_is_not(url: str) -> None:
    assert "sh" not in masked(url)
    assert "h" in masked(url) or "::1" in masked(url)


def test_a_config_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load([], {}).shards = 9  # type: ignore[misc]


def test_the_defaults_pass_their_own_rules() -> None:
    for kind, prefix in ((ChatConfig, "CHATD"), (BrokerConfig, "BROKERD")):
        config = build(kind, prefix, {})
        again = build(kind, prefix, {}, effective(config).replace("***@", "guest:guest@"))
        assert again == config


def test_the_documentation_lists_exactly_the_keys_that_there_are() -> None:
    page = Path(__file__).parents[1] / "docs" / "configuration.md"
    assert page.read_text() == document(), "run: python -m chatd.config > docs/configuration.md"


def test_a_credential_is_the_value_of_the_key_it_is_named_after(tmp_path: Path) -> None:
    (tmp_path / "chatd_redis.url").write_text("redis://:secret@r\n")
    (tmp_path / "chatd_auth.keys_file").write_text("")
    (tmp_path / "brokerd_redis.url").write_text("redis://other")
    config = read(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert config.redis.url == "redis://:secret@r"
    assert config.keys_file == tmp_path / "chatd_auth.keys_file", "what wants a file is given the file"


def test_a_variable_wins_over_a_credential(tmp_path: Path) -> None:
    (tmp_path / "chatd_redis.url").write_text("redis://credential")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "CHATD_REDIS_URL": "redis://variable"}
    assert read(None, environ).redis.url == "redis://variable"


@pytest.mark.parametrize("name", ["chatd_redis.uri", "missing"])
def test_a_credential_that_can_be_for_nothing_is_no_credential(tmp_path: Path, name: str) -> None:
    if name != "missing":
        (tmp_path / name).write_text("redis://r")
    with pytest.raises(SettingsError):
        read(None, {"CREDENTIALS_DIRECTORY": str(tmp_path if name != "missing" else tmp_path / name)})
