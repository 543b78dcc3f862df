"""What an installation takes along: a checkout has every file beside the code, a package only what setup.cfg names."""

from __future__ import annotations

import configparser
from fnmatch import fnmatch
from pathlib import PurePath

from tests.house.sources import PACKAGES, ROOT, committed


def of_packages() -> list[PurePath]:
    return [PurePath(path) for path in committed() if path.split("/", 1)[0] in PACKAGES]


def test_every_file_beside_the_code_is_installed_with_it() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [word.strip() for word in config["options.package_data"]["*"].split(",")]
    left_behind = []
    for path in of_packages():
        package = next(folder for folder in path.parents if (ROOT / folder / "__init__.py").exists())
        if path.suffix != ".py" and not any(fnmatch(str(path.relative_to(package)), pattern) for pattern in patterns):
            left_behind.append(str(path))
    assert left_behind == []


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in of_packages() if path.suffix == ".py"}
    assert [str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()] == []
