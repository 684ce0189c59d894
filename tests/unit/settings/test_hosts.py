"""A database file on a host whose disk does not last is refused before it takes an event."""

from __future__ import annotations

import pytest

from bridge import settings
from bridge.errors import SettingsError
from bridge.settings import hosts

SIGNS = (
    *((host.name, name) for host in hosts.HOSTS for name in host.variables),
    ("Northflank", "NF_OBJECT_ID"), ("Northflank", "NORTHFLANK_PROJECT"),
)  # fmt: skip
POSTGRES = "postgresql://user:word@host/name"


@pytest.mark.parametrize(("host", "name"), SIGNS)
def test_a_file_is_refused_where_disks_do_not_last(host, name):
    with pytest.raises(SettingsError) as caught:
        settings.load({name: "x"})
    [told] = caught.value.problems
    assert told.startswith(f"DATABASE_URL is a file, but {host} wipes ")
    assert told.endswith("or set BRIDGE_ALLOW_EPHEMERAL=1 if the file is on a persistent volume")
    assert settings.load({name: "x", "BRIDGE_ALLOW_EPHEMERAL": "1"}).database_url == "sqlite:///bridge.db"
    assert settings.load({name: "x", "DATABASE_URL": POSTGRES})
    assert settings.load({name: " "})


@pytest.mark.parametrize(
    "name", ["FLY_API_TOKEN", "RAILWAY_TOKEN", "KOYEB_TOKEN", "NF_TOKEN", "NORTHFLANK_API_KEY", "NFS"]
)
def test_what_a_hosts_tools_read_elsewhere_is_no_sign_of_it(name):
    assert settings.load({name: "x"})


@pytest.mark.parametrize("value", ["", "false", "False", "0", "no"])
def test_a_sign_that_is_switched_off_is_none(value):
    assert settings.load({"RENDER": value})


@pytest.mark.parametrize(
    ("file", "environ", "allowed"),
    [
        ("/data/bridge.db", {"RAILWAY_VOLUME_MOUNT_PATH": "/data"}, True),
        ("/data/of/a/shop.db", {"RAILWAY_VOLUME_MOUNT_PATH": "/data/"}, True),
        ("/data/../app/bridge.db", {"RAILWAY_VOLUME_MOUNT_PATH": "/data"}, False),
        ("/database/bridge.db", {"RAILWAY_VOLUME_MOUNT_PATH": "/data"}, False),
        ("bridge.db", {"RAILWAY_VOLUME_MOUNT_PATH": "/data"}, False),
        ("/data/bridge.db", {"RAILWAY_PROJECT_ID": "1"}, False),
        ("/home/bridge.db", {"WEBSITE_SITE_NAME": "shop"}, True),
        ("/home/bridge.db", {"WEBSITE_SITE_NAME": "shop", "WEBSITES_ENABLE_APP_SERVICE_STORAGE": "false"}, False),
        ("/tmp/bridge.db", {"WEBSITE_SITE_NAME": "shop"}, False),
        ("/home/bridge.db", {"CONTAINER_APP_NAME": "shop"}, False),
        ("/data/bridge.db", {"FLY_APP_NAME": "shop"}, False),
    ],
)
def test_a_volume_that_the_host_names_is_a_place_that_lasts(file, environ, allowed):
    given = {"DATABASE_URL": f"sqlite:///{file}", **environ}
    if "RAILWAY_VOLUME_MOUNT_PATH" in environ:
        given["RAILWAY_PROJECT_ID"] = "1"
    if allowed:
        assert settings.load(given)
    else:
        with pytest.raises(SettingsError, match="DATABASE_URL is a file"):
            settings.load(given)
