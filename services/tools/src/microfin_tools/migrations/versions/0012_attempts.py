"""The operations of an account that have no entry are found by an index of their own.

See docs/adr/0053-own-operations.md. The summaries of accounts are made anew: they now say of an
account with such operations, too, that a volume may have it. Until then its volumes are asked.
"""

from importlib import import_module

import structlog
from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

logger = structlog.get_logger(__name__)

_volumes = import_module("microfin_tools.migrations.versions.0008_volumes")
_look_ups = import_module("microfin_tools.migrations.versions.0010_look_ups")

_WITHOUT_ENTRY = """leg = 'request' AND user_id IS NOT NULL
    AND (status = 'rejected' OR kind = 'open')"""

# The user comes before the time: strangers whose operations on an account were rejected are not in
# the way of its owner.
_INDEX = f"""outcomes_without_entry ON {{home}}.outcomes (account, user_id, at, operation_id)
    WHERE {_WITHOUT_ENTRY}"""

_HOMES = "SELECT 'volume_' || replace(volume::text, '-', 'm') FROM volumes ORDER BY volume"


_with = _look_ups._with  # noqa: SLF001 - a migration stands on those before it
_ADD_VOLUME = _volumes.OPEN_VOLUME[
    _volumes.OPEN_VOLUME.index("CREATE FUNCTION add_volume") : _volumes.OPEN_VOLUME.index(
        "COMMENT ON FUNCTION add_volume"
    )
]
LAST_INDEX = """        WHERE kind = ''open'' AND status = ''settled''', home);
"""
ADD_VOLUME = _with(
    _with(_ADD_VOLUME, "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"),
    LAST_INDEX,
    LAST_INDEX
    + f"    EXECUTE format($index$CREATE INDEX {_INDEX.format(home='%I')}$index$, home);\n",
)

_ACCOUNTS_OF_ENTRIES = """\
            FROM (SELECT DISTINCT account FROM entries
                WHERE volume = %s AND account >= %L AND account < %L) AS those
            GROUP BY account_chunk(account)
            ON CONFLICT DO NOTHING', full_volume, full_volume,
            lpad(accounts_chunks::text, 5, '0'),
            CASE WHEN following < 100000 THEN lpad(following::text, 5, '0') ELSE ':' END);
"""
_ACCOUNTS = f"""\
            FROM (
                SELECT account FROM entries
                WHERE volume = %1$s AND account >= %2$L AND account < %3$L
                UNION
                SELECT account FROM outcomes
                WHERE volume = %1$s AND account >= %2$L AND account < %3$L
                    AND {_WITHOUT_ENTRY.replace("'", "''")}
            ) AS those
            GROUP BY account_chunk(account)
            ON CONFLICT DO NOTHING', full_volume,
            lpad(accounts_chunks::text, 5, '0'),
            CASE WHEN following < 100000 THEN lpad(following::text, 5, '0') ELSE ':' END);
"""  # noqa: S608 - all names are ours
SUM_UP = _with(
    _with(_look_ups.SUM_UP, _ACCOUNTS_OF_ENTRIES, _ACCOUNTS),
    "SELECT account_chunk(account), %s, bit_or",
    "SELECT account_chunk(account), %1$s, bit_or",
)

SUM_UP_AGAIN = """
ALTER TABLE account_summaries DISABLE TRIGGER summaries_are_immutable;
DELETE FROM account_summaries;
ALTER TABLE account_summaries ENABLE TRIGGER summaries_are_immutable;
UPDATE volumes SET summed_accounts = 0;
"""

ATTEMPTS = f"""
CREATE FUNCTION attempts_of(
    number text, asker uuid, oldest_first boolean, place_volume integer, place_at timestamptz,
    place_operation uuid, since timestamptz, before timestamptz, at_most integer
) RETURNS SETOF outcomes LANGUAGE plpgsql STABLE SET enable_seqscan = off
AS $$
DECLARE
    those integer;
    missing integer := at_most;
    here integer;
BEGIN
    FOR those IN
        SELECT it FROM unnest(volumes_of_account(number)) AS it
        WHERE place_volume IS NULL
            OR CASE WHEN oldest_first THEN it >= place_volume ELSE it <= place_volume END
        ORDER BY CASE WHEN oldest_first THEN it ELSE -it END
    LOOP
        RETURN QUERY EXECUTE format('SELECT * FROM outcomes
            WHERE volume = %s AND account = $1 AND user_id = $2 AND at >= $3 AND at < $4
                AND ($5 IS NULL OR (at, operation_id) %s ($5, $6))
                AND {_WITHOUT_ENTRY.replace("'", "''")}
            ORDER BY at %3$s, operation_id %3$s LIMIT $7', those,
            CASE WHEN oldest_first THEN '>' ELSE '<' END,
            CASE WHEN oldest_first THEN 'ASC' ELSE 'DESC' END)
        USING number, asker, since, before,
            CASE WHEN those = place_volume THEN place_at END, place_operation, missing;
        GET DIAGNOSTICS here = ROW_COUNT;
        missing := missing - here;
        EXIT WHEN missing <= 0;
    END LOOP;
END
$$;
COMMENT ON FUNCTION attempts_of IS
    'A user''s operations on an account that have no entry, in the order of decision';
REVOKE EXECUTE ON FUNCTION attempts_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION attempts_of TO microfin_api;
"""  # noqa: S608 - all names are ours


# A volume that was opened since the indexes were made is small: it has one in a moment.
INDEX_OF_NEW_VOLUMES = f"""
DO $$ DECLARE home text; BEGIN
    FOR home IN
        SELECT it FROM ({_HOMES}) AS homes (it)
        WHERE to_regclass(it || '.outcomes_without_entry') IS NULL
    LOOP
        EXECUTE format($index$CREATE INDEX {_INDEX.format(home="%I")}$index$, home);
    END LOOP;
END $$;
"""  # noqa: S608 - all names are ours


def upgrade() -> None:
    """Make the index in all volumes, and let new volumes and summaries have what it needs."""
    homes = [row[0] for row in op.get_bind().execute(text(_HOMES))]
    with op.get_context().autocommit_block():
        for home in homes:
            logger.info("reading a volume once, while others write", volume=home)
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {home}.outcomes_without_entry")
            op.execute(f"CREATE INDEX CONCURRENTLY {_INDEX.format(home=home)}")
    op.execute(ADD_VOLUME)
    op.execute(INDEX_OF_NEW_VOLUMES)
    op.execute(SUM_UP)
    _volumes.when_nobody_is_in_the_way(SUM_UP_AGAIN, op.get_bind().begin_nested)
    op.execute(ATTEMPTS)
