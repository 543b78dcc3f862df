from __future__ import annotations

from uuid import UUID

import pytest

from chatd.web.routes import BadTemplate, Found, Missing, Route, Routes, WrongMethod


def match(template: str, path: str, method: str = "GET") -> object:
    return Routes([Route("GET", template, "it")]).match(method, path)


def values(template: str, path: str) -> object:
    found = match(template, path)
    return list(found.args.values()) if isinstance(found, Found) else None


FITS = [
    ("/livez", "/livez", []),
    ("/a/{x}", "/a/anything", ["anything"]),
    ("/a/{x}", "/a/%2F%25", ["/%"]),
    ("/a/{x}", "/%61/%C3%A4", ["ä"]),
    ("/{n:int}", "/-12", [-12]),
    ("/{n:int}", "/9223372036854775807", [2**63 - 1]),
    ("/{n:min(3)}", "/3", [3]),
    ("/{n:max(3)}", "/3", [3]),
    ("/{n:range(1,5)}", "/5", [5]),
    ("/{n:int:min(2):max(9)}", "/7", [7]),
    ("/{id:uuid}", "/12345678-1234-1234-1234-123456789abc", [UUID("12345678-1234-1234-1234-123456789abc")]),
    ("/{id:guid}", "/12345678-1234-1234-1234-123456789ABC", [UUID("12345678-1234-1234-1234-123456789abc")]),
    ("/{k:enum(a|b)}", "/b", ["b"]),
    ("/{s:length(2)}", "/äö", ["äö"]),
    ("/{s:length(1,64)}", "/" + "x" * 64, ["x" * 64]),
    ("/{s:minlength(2):maxlength(3)}", "/xyz", ["xyz"]),
    ("/{s:alpha}", "/Ab", ["Ab"]),
    ("/{b:bool}", "/false", [False]),
    ("/{s:regex([a-z]{2}[0-9]+)}", "/ab12", ["ab12"]),
    ("/{s:regex(a/(b|c:d))}", "/a%2Fc:d", ["a/c:d"]),
    ("/{s:regex(\\(x\\))}", "/(x)", ["(x)"]),
    ("/{u:name}", "/ann.1%40example", ["ann.1@example"]),
    ("/u/{u:name}/d/{n:int}", "/u/ann/d/4", ["ann", 4]),
]


@pytest.mark.parametrize(("template", "path", "expected"), FITS)
def test_what_fits_is_found_and_typed(template: str, path: str, expected: list[object]) -> None:
    assert values(template, path) == expected


MISFITS = [
    ("/livez", "/livez/"),
    ("/livez", "//livez"),
    ("/livez", "livez"),
    ("/livez", "/LIVEZ"),
    ("/livez", ""),
    ("/livez", "*"),
    ("/a/{x}", "/a/"),
    ("/a/{x}", "/a/b/c"),
    ("/a/{x}", "/a/%"),
    ("/a/{x}", "/a/%zz"),
    ("/a/{x}", "/a/%ff"),
    ("/a/{x}", "/a/%c0%af"),
    ("/a/{x}", "/a/%00"),
    ("/a/{x}", "/a/%0d%0a"),
    ("/a/b", "/a%2Fb"),
    ("/{n:int}", "/1.5"),
    ("/{n:int}", "/1%0A"),
    ("/{n:int}", "/%D9%A3"),  # an Arabic three
    ("/{n:int}", "/9223372036854775808"),
    ("/{n:int}", "/" + "9" * 5000),
    ("/{n:min(3)}", "/2"),
    ("/{n:max(3)}", "/4"),
    ("/{n:range(1,5)}", "/0"),
    ("/{n:range(1,5)}", "/x"),
    ("/{n:int:min(2):max(9)}", "/10"),
    ("/{id:uuid}", "/12345678123412341234123456789abc"),
    ("/{k:enum(a|b)}", "/c"),
    ("/{k:enum(a|b)}", "/a|b"),
    ("/{s:length(2)}", "/xyz"),
    ("/{s:length(1,64)}", "/" + "x" * 65),
    ("/{s:alpha}", "/a1"),
    ("/{b:bool}", "/True"),
    ("/{s:regex(ab)}", "/abc"),
    ("/{u:name}", "/Ann"),
    ("/{u:name}", "/ann:x"),
    ("/{u:name}", "/" + "a" * 65),
]


@pytest.mark.parametrize(("template", "path"), MISFITS)
def test_what_does_not_fit_is_not_found(template: str, path: str) -> None:
    assert match(template, path) == Missing()


MALFORMED = [
    "livez", "", "/a//b", "/a/", "/{x", "/x}", "/{}", "/{X}", "/{1}", "/a{x}", "/{x}-{y}", "/{x}/{x}", "/{x:}",
    "/{x:int:}", "/{x::int}", "/{x:odd}", "/{x:int(3)}", "/{x:min}", "/{x:min()}", "/{x:min(a)}", "/{x:min(1,2)}",
    "/{x:range(1)}", "/{x:range(5,1)}", "/{x:length(1,2,3)}", "/{x:length(-1)}", "/{x:length(3,2)}", "/{x:enum()}",
    "/{x:enum(a||b)}", "/{x:enum(a|a)}", "/{x:regex([)}", "/{x:regex(a}", "/{x:int:alpha}", "/{x:enum(a):int}",
    "/{x:int)}", "/ä", "/%61", "/a?b",
]  # fmt: skip


@pytest.mark.parametrize("template", MALFORMED)
def test_a_malformed_template_is_refused_when_the_table_is_built(template: str) -> None:
    with pytest.raises(BadTemplate):
        Routes([Route("GET", template, "it")])


@pytest.mark.parametrize("method", ["get", "HEAD", "", "GE T"])
def test_a_method_that_cannot_stand_in_the_table_is_refused(method: str) -> None:
    with pytest.raises(BadTemplate):
        Routes([Route(method, "/a", "it")])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a", "/a"),
        ("/{x}", "/a"),
        ("/{x}", "/{y}"),
        ("/{x:int}", "/{y:min(5)}"),
        ("/{x:name}", "/{y:int}"),
        ("/{x:enum(a|b)}", "/{y:enum(b|c)}"),
        ("/{x:enum(a|7)}", "/{y:int}"),
        ("/a/{x}", "/{y}/b"),
    ],
)
def test_two_routes_that_could_take_the_same_path_are_refused(one: str, other: str) -> None:
    for pair in ((one, other), (other, one)):
        with pytest.raises(BadTemplate):
            Routes([Route("GET", template, "it") for template in pair])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a", "/b"),
        ("/{x}", "/a/b"),
        ("/{x:int}", "/a"),
        ("/{x:int}", "/{y:alpha}"),
        ("/{x:int}", "/{y:uuid}"),
        ("/{x:enum(a|b)}", "/{y:enum(c|d)}"),
        ("/{x:length(3)}", "/ab"),
    ],
)
def test_two_routes_that_never_take_the_same_path_stand_together(one: str, other: str) -> None:
    Routes([Route("GET", one, "one"), Route("GET", other, "other")])


def test_a_wrong_method_is_told_what_is_allowed() -> None:
    routes = Routes(
        [Route("GET", "/a/{x:int}", "get"), Route("DELETE", "/a/{y}", "delete"), Route("POST", "/b", "post")]
    )
    assert routes.match("POST", "/a/1") == WrongMethod(("DELETE", "GET", "HEAD"))
    assert routes.match("POST", "/a/x") == WrongMethod(("DELETE",))
    assert routes.match("GET", "/b") == WrongMethod(("POST",))
    assert routes.match("get", "/b") == WrongMethod(("POST",))


def test_head_is_answered_by_the_route_of_get() -> None:
    assert match("/a", "/a", "HEAD") == Found("it", {})
