"""A SQLite file that vanishes or is replaced while it is open: no answer without a row where the path leads."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest
from inbox_kit import Inbox

from bridge import store as bridge_store
from bridge.errors import StoreGone, StoreUnavailable
from bridge.model import Ack, Envelope, NewEvent
from bridge.settings import database_file


def event(number):
    return NewEvent("stripe", "stripe", Envelope("a.b", f"evt_{number}"), (f"k{number}",), {}, {}, b"{}")


def rows(file):
    with closing(sqlite3.connect(file)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {name for (name,) in conn.execute("SELECT provider_event_id FROM events")}


@pytest.fixture
def folder(tmp_path, sqlite_template):
    made = tmp_path / "data"
    made.mkdir()
    shutil.copy(sqlite_template, tmp_path / "another.db")
    return made


@pytest.fixture
def file(folder, sqlite_template):
    return Path(shutil.copy(sqlite_template, folder / "bridge.db"))


def unlink(file):
    file.unlink()


def unlink_all(file):
    for found in file.parent.glob("bridge.db*"):
        found.unlink()


def move(file):
    file.rename(file.with_name("moved.db"))


def move_all(file):
    for found in file.parent.glob("bridge.db*"):
        found.rename(file.parents[1] / found.name)


def replace(file):
    (file.parents[1] / "another.db").rename(file)


def replace_by_text(file):
    text = file.with_name("notes.txt")
    text.write_text("hello " * 1000)
    text.rename(file)


def copy_over(file):
    file.unlink()
    shutil.copy(file.parents[1] / "another.db", file)


def remove_folder(file):
    shutil.rmtree(file.parent)


def move_folder(file):
    file.parent.rename(file.parents[1] / "elsewhere")


def file_for_folder(file):
    shutil.rmtree(file.parent)
    file.parent.write_text("")


def link_to_where_it_went(file):
    moved = file.parents[1] / "moved.db"
    file.rename(moved)
    file.symlink_to(moved)


def link_to_itself(file):
    file.unlink()
    file.symlink_to(file)


def empty(file):
    os.truncate(file, 0)


def unlink_log(file):
    file.with_name("bridge.db-wal").unlink()


def replace_log(file):
    log = file.with_name("bridge.db-wal")
    shutil.copy(log, file.with_name("copy"))
    file.with_name("copy").rename(log)


def unlink_shared_memory(file):
    file.with_name("bridge.db-shm").unlink()


WAYS = (
    unlink, unlink_all, move, move_all, replace, replace_by_text, copy_over, remove_folder, move_folder,
    file_for_folder, link_to_where_it_went, link_to_itself, empty, unlink_log, replace_log, unlink_shared_memory,
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_acknowledged_read_or_written_once_the_path_leads_elsewhere(file, way):
    store = bridge_store.open(f"sqlite:///{file}")
    inbox = Inbox(store)
    assert inbox.put(event(1)) is Ack.ACCEPTED
    way(file)
    for number in (2, 3):
        with pytest.raises(StoreGone, match="bridge is restarted"):
            inbox.put(event(number))
    with pytest.raises(StoreGone), store.read():
        pass
    with pytest.raises(StoreGone), store.write():
        pass
    with pytest.raises(StoreGone):
        store.require_file()
    inbox.close()
    store.close()


@pytest.mark.parametrize("begin", ["write", "driver"])
def test_a_file_that_vanishes_between_the_statement_and_the_commit_is_no_success(file, begin):
    store = bridge_store.open(f"sqlite:///{file}")
    with pytest.raises(StoreGone), getattr(store, begin)():
        file.unlink()
    store.close()


def test_it_stays_so_until_a_restart_even_when_the_file_is_back(folder, file):
    store = bridge_store.open(f"sqlite:///{file}")
    with store.write():
        pass
    moved = file.rename(folder / "moved.db")
    with pytest.raises(StoreGone):
        store.require_file()
    moved.rename(file)
    with pytest.raises(StoreGone), store.write():
        pass
    store.close()
    again = bridge_store.open(f"sqlite:///{file}")
    with again.write():
        pass
    again.close()


def test_what_was_acknowledged_is_whole_in_the_file_that_was_moved_and_the_new_one_is_itself(folder, file):
    """SQLite would read the log of the old file, left at the path, into the one that took its place."""
    store = bridge_store.open(f"sqlite:///{file}")
    inbox = Inbox(store)
    for number in range(50):
        assert inbox.put(event(number)) is Ack.ACCEPTED
    moved = file.rename(folder / "moved.db")
    replace(file)
    with pytest.raises(StoreGone):
        inbox.put(event("late"))
    assert rows(moved) >= {f"evt_{number}" for number in range(50)}
    assert rows(file) == set()
    inbox.close()
    store.close()
    assert rows(moved) >= {f"evt_{number}" for number in range(50)}
    assert rows(file) == set()


def test_the_log_of_a_transaction_that_was_open_when_it_was_noticed_is_moved_too(folder, file):
    store = bridge_store.open(f"sqlite:///{file}")
    inbox = Inbox(store)
    assert inbox.put(event(1)) is Ack.ACCEPTED

    def replace_under_an_open_transaction():
        with store.write() as conn:
            conn.exec_driver_sql("UPDATE events SET provider_event_id = 'evt_late'")
            os.link(file, folder / "kept.db")
            replace(file)
            with pytest.raises(StoreGone):
                store.require_file()

    with pytest.raises(StoreGone):
        replace_under_an_open_transaction()
    assert rows(file) == set()
    assert rows(folder / "kept.db") == {"evt_late"}
    inbox.close()
    store.close()


def test_a_new_connection_never_makes_a_file_where_one_vanished(file):
    store = bridge_store.open(f"sqlite:///{file}")
    with store.read():  # holds the one connection that there is
        file.unlink()
        with pytest.raises(StoreGone):
            store.engine.connect()
    assert not file.exists()
    store.close()


def test_connections_that_close_leave_the_log_as_it_is(file):
    """Another process that ends, or a pool that empties itself, must not look like a log that was taken away."""
    store = bridge_store.open(f"sqlite:///{file}")
    with store.write():
        pass
    store.engine.dispose()
    with closing(sqlite3.connect(file)) as conn:
        conn.execute("SELECT count(*) FROM events").fetchone()
    with store.write():
        pass
    store.close()


def test_a_folder_that_cannot_be_searched_is_unavailable_and_not_for_good(file, monkeypatch):
    store = bridge_store.open(f"sqlite:///{file}")
    with store.write():
        pass
    long = Path("x" * 300)  # for whatever lstat may say that is no answer: here, a name that is too long
    monkeypatch.setattr(store._file._watch, "_open", ((long, (1, 1)),))
    with pytest.raises(StoreUnavailable, match="cannot be looked at: file name too long") as caught:
        store.require_file()
    assert not isinstance(caught.value, StoreGone)
    monkeypatch.undo()
    with store.write():
        pass
    store.close()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_the_file_and_its_log_are_private_from_the_first_moment_whatever_the_umask(folder, mask):
    file = folder / "bridge.db"
    before = os.umask(mask)
    try:
        bridge_store.migrate(f"sqlite:///{file}")
        store = bridge_store.open(f"sqlite:///{file}")
        with store.write():
            assert modes(folder) == {"bridge.db": 0o600, "bridge.db-wal": 0o600, "bridge.db-shm": 0o600}
        store.close()
    finally:
        os.umask(before)


def test_a_file_that_others_could_read_is_closed_to_them_and_so_is_its_log(folder, file):
    with closing(sqlite3.connect(file)) as other:
        other.execute("SELECT count(*) FROM events").fetchone()
        for found in folder.iterdir():
            found.chmod(0o664)
        store = bridge_store.open(f"sqlite:///{file}")
        with store.read():
            assert set(modes(folder).values()) == {0o600}
        store.close()


def test_a_link_leads_to_a_private_file_that_is_watched(folder, file):
    link = folder / "link.db"
    link.symlink_to(file)
    store = bridge_store.open(f"sqlite:///{link}")
    with store.write():
        assert modes(folder)["bridge.db-wal"] == modes(folder)["bridge.db"] == 0o600
    other = folder / "other.db"
    os.link(file, other)
    link.unlink()
    link.symlink_to(other)  # the same file by another name, beside which there is no log
    with pytest.raises(StoreGone):
        store.require_file()
    store.close()


@pytest.mark.parametrize(
    ("end", "what"), [("link.db", "is another"), ("none.db", "is gone"), ("other.db", "is another")]
)
def test_a_link_that_leads_elsewhere_is_told_as_what_it_is(folder, file, end, what):
    link = folder / "link.db"
    link.symlink_to(file)
    store = bridge_store.open(f"sqlite:///{link}")
    with store.read():
        pass
    shutil.copy(file, folder / "other.db")
    link.unlink()
    link.symlink_to(folder / end)  # itself, nothing, another file
    with pytest.raises(StoreGone, match=what):
        store.require_file()
    store.close()


def test_a_file_that_sqlite_names_by_a_uri_is_watched_and_private_too(folder):
    file = folder / "of a shop.db"
    url = f"sqlite:///file:{str(file).replace(' ', '%2520')}?mode=rwc&uri=true"
    bridge_store.migrate(url)
    store = bridge_store.open(url)
    with store.write():
        assert modes(folder) == {f"of a shop.db{end}": 0o600 for end in ("", "-wal", "-shm")}
    file.unlink()
    with pytest.raises(StoreGone), store.write():
        pass
    store.close()


def modes(folder):
    return {found.name: stat.S_IMODE(found.stat().st_mode) for found in folder.iterdir()}


def test_a_process_that_takes_anothers_place_goes_on_with_the_same_file_or_with_none(file, monkeypatch):
    monkeypatch.setattr(database_file, "_held", {})
    database_file.hold(f"sqlite:///{file}")
    replace(file)
    store = bridge_store.open(f"sqlite:///{file}")
    with pytest.raises(StoreGone), store.write():
        pass
    for descriptor in database_file._held.values():
        with suppress(OSError):
            os.close(descriptor)
