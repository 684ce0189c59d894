"""Hosts that throw a container's disk away with it, recognised by the variables that they document.

A database file there is lost at the next deploy or restart, unless it lies on a volume. Only some hosts say which paths
are volumes; for all others there is BRIDGE_ALLOW_EPHEMERAL. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Host:
    """One host. variables: it sets at least one of them, and its tools read none on a developer's machine.

    prefixes: how the names of further variables of it begin. instead: what to do instead of using SQLite there.
    """

    name: str
    variables: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    instead: str = "take a PostgreSQL"


HOSTS: Final = (
    Host("Heroku", ("DYNO",), instead="add a database with `heroku addons:create heroku-postgresql:essential-0`"),
    Host("Render", ("RENDER", "RENDER_SERVICE_ID", "RENDER_INSTANCE_ID")),
    Host("Railway", (
        "RAILWAY_ENVIRONMENT", "RAILWAY_ENVIRONMENT_NAME", "RAILWAY_ENVIRONMENT_ID", "RAILWAY_PROJECT_ID",
        "RAILWAY_SERVICE_ID", "RAILWAY_SERVICE_NAME", "RAILWAY_DEPLOYMENT_ID", "RAILWAY_REPLICA_ID",
    )),
    Host("Fly.io", ("FLY_APP_NAME", "FLY_MACHINE_ID", "FLY_ALLOC_ID")),
    Host("Google Cloud Run", (
        "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION", "CLOUD_RUN_WORKER_POOL",
    )),
    Host("Google App Engine", ("GAE_ENV", "GAE_SERVICE", "GAE_APPLICATION", "GAE_INSTANCE", "GAE_VERSION")),
    Host("Azure", ("WEBSITE_SITE_NAME", "WEBSITE_INSTANCE_ID", "CONTAINER_APP_NAME", "CONTAINER_APP_REVISION")),
    Host("Koyeb", (
        "KOYEB_APP_NAME", "KOYEB_APP_ID", "KOYEB_SERVICE_NAME", "KOYEB_SERVICE_ID", "KOYEB_INSTANCE_ID",
        "KOYEB_PUBLIC_DOMAIN", "KOYEB_REGION", "KOYEB_DC",
    )),
    Host("Northflank", (), ("NORTHFLANK_", "NF_")),
)  # fmt: skip
_TOOL_SUFFIXES: Final = ("TOKEN", "KEY")
_OFF: Final = ("", "0", "false", "no", "off")  # such as `RENDER=false`, to try an application as it is elsewhere
_VOLUME: Final = "RAILWAY_VOLUME_MOUNT_PATH"
_SHARED: Final = "WEBSITES_ENABLE_APP_SERVICE_STORAGE"  # Azure: whether /home lasts in a container of one's own
VARIABLES: Final = frozenset({_VOLUME, _SHARED, *(name for host in HOSTS for name in host.variables)})


def is_host_variable(name: str) -> bool:
    """Whether it is one of the variables by which a host is recognised."""
    prefixes = tuple(prefix for host in HOSTS for prefix in host.prefixes)
    return name in VARIABLES or (name.startswith(prefixes) and not name.endswith(_TOOL_SUFFIXES))


def host_of(environ: Mapping[str, str]) -> Host | None:
    """The host that this environment belongs to, if it is one whose disks do not last."""
    given = [name for name, value in environ.items() if value.strip().lower() not in _OFF and is_host_variable(name)]
    return next(
        (host for host in HOSTS if any(name in host.variables or name.startswith(host.prefixes) for name in given)),
        None,
    )


def lasts(file: PurePosixPath | None, host: Host, environ: Mapping[str, str]) -> bool:
    """Whether the host itself says that a file at this place lasts."""
    if file is None or not file.is_absolute() or ".." in file.parts:
        return False
    if host.name == "Railway":
        volume = environ.get(_VOLUME, "").strip()
        return volume.startswith("/") and file.is_relative_to(volume)
    shared = environ.get(_SHARED, "true").strip().lower() in ("true", "1", "")
    return host.name == "Azure" and "WEBSITE_SITE_NAME" in environ and shared and file.is_relative_to("/home")
