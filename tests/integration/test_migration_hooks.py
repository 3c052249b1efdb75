"""The migration hooks, with the real Django, Alembic and SQLite."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.shipped import Host, explains


def with_this_python(host: Host) -> None:
    """An environment of the tree's own: the tests' Python, which has Django and Alembic."""
    host.write(".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n', 0o755)


MANAGE = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": {"timeout": 0}}
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["app"], USE_TZ=True)
execute_from_command_line(sys.argv)
"""
MIGRATION = """
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = []
    operations = [migrations.RunSQL({sql!r})]
"""
ALEMBIC_INI = "[alembic]\nscript_location = %(here)s/alembic\npath_separator = os\n"
ALEMBIC_ENV = """
from alembic import context
from sqlalchemy import create_engine
with create_engine("sqlite:///db.sqlite3", connect_args={"timeout": 0}).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
revision = "one"
down_revision = None
from alembic import op
def upgrade():
    op.execute({sql!r})
"""


def django(host: Host, sql: str) -> None:
    with_this_python(host)
    host.write("manage.py", MANAGE)
    host.write("app/migrations/__init__.py", "")
    host.write("app/__init__.py", "")
    host.write("app/migrations/0001_one.py", MIGRATION.format(sql=sql))


def alembic(host: Host, sql: str) -> None:
    with_this_python(host)
    host.write("alembic.ini", ALEMBIC_INI)
    host.write("alembic/env.py", ALEMBIC_ENV)
    host.write("alembic/versions/one.py", REVISION.format(sql=sql))


TOOLS = pytest.mark.parametrize(
    ("hook", "project"), [("migrate-django", django), ("migrate-alembic", alembic)]
)
Project = Callable[[Host, str], None]


def has_table(host: Host) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'one'"
    with closing(sqlite3.connect(host.tree / "db.sqlite3")) as database:
        return bool(database.execute(query).fetchone()[0])


@TOOLS
def test_a_pending_migration_is_seen_and_applied(host: Host, hook: str, project: Project) -> None:
    project(host, "CREATE TABLE one (id INTEGER)")
    status, output = host.run(hook, "--check")
    assert (status, explains(output)) == (1, True)
    assert "pending" in output
    assert not has_table(host)
    status, output = host.run(hook)
    assert status == 0, output
    assert has_table(host)
    status, output = host.run(hook, "--check")
    assert status == 0, output


@TOOLS
def test_a_migration_that_fails_and_a_locked_database(
    host: Host, hook: str, project: Project
) -> None:
    project(host, "CREATE NONSENSE")
    status, output = host.run(hook)
    assert (status, explains(output)) == (1, True)
    assert "would not migrate" in output
    with closing(sqlite3.connect(host.tree / "db.sqlite3")) as database:
        database.execute("BEGIN EXCLUSIVE")
        status, output = host.run(hook)
    assert (status, explains(output)) == (75, True), output
    assert "database is locked" in output


@TOOLS
def test_on_the_way_back_the_database_stays_as_it_is(
    host: Host, hook: str, project: Project
) -> None:
    project(host, "CREATE TABLE one (id INTEGER)")
    assert host.run(hook, DEPLOY_REASON="rollback")[0] == 0
    assert not (host.tree / "db.sqlite3").exists()


def test_a_revision_that_the_tree_no_longer_has_is_explained(host: Host) -> None:
    alembic(host, "CREATE TABLE one (id INTEGER)")
    assert host.run("migrate-alembic")[0] == 0
    (host.tree / "alembic/versions/one.py").unlink()
    status, output = host.run("migrate-alembic")
    assert (status, explains(output)) == (1, True)
    assert "a migration that this tree does not have" in output


@pytest.mark.parametrize("hook", ["migrate-django", "migrate-alembic"])
def test_a_wait_for_a_lock_is_bounded_and_what_is_missing_is_named(host: Host, hook: str) -> None:
    status, output = host.run(hook)
    assert (status, explains(output)) == (1, True)
    assert "there is no " in output
    for name in ("manage.py", "alembic.ini"):
        host.write(name, "")
    show = '#!/bin/sh\necho "PGOPTIONS=$PGOPTIONS"\n'
    host.write(".venv/bin/python", show, 0o755)
    output = host.run(hook, "--lock-timeout", "2s", PGOPTIONS="-c search_path=shop")[1]
    assert "PGOPTIONS=-c lock_timeout=2000 -c search_path=shop\n" in output
