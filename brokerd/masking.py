"""Takes the secrets out of text that is about to be shown: URLs carry passwords."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"//[^/\s]*@")
_QUERY = re.compile(r"(\w://[^\s?]*)\?\S*")


def masked(text: str) -> str:
    """`text` with the user:password@ and the query of every URL in it replaced by ***."""
    return _USERINFO.sub("//***@", _QUERY.sub(r"\1?***", text))
