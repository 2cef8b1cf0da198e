"""`import etl` offers the public API, and loads each name at its first use."""

import subprocess
import sys

import pytest

import etl
from etl.app import App
from etl.errors import EtlError


def test_every_public_name_can_be_used() -> None:
    assert etl.App is App
    for name in etl.__all__:
        assert getattr(etl, name).__name__ == name
    assert set(etl.__all__) <= set(dir(etl))


def test_every_public_error_is_an_etl_error() -> None:
    errors = [
        one
        for name in etl.__all__
        if isinstance(one := getattr(etl, name), type) and issubclass(one, Exception)
    ]
    assert len(errors) > 5
    assert all(issubclass(one, EtlError) for one in errors)


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'etl' has no attribute 'Nothing'"):
        _ = etl.Nothing


def test_importing_the_package_loads_no_driver() -> None:
    code = "import sys, etl; print({'pymongo', 'redis', 'pydantic', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
