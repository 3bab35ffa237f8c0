"""Look-ups ask the volumes that may have something, not each one.

See docs/adr/0047-look-ups-over-volumes.md. A question to `outcomes` or `entries` that names no
volume is planned for all of them, and locks all of them, each time. The functions here find out
which volumes may have an operation or an account, and then name them: PostgreSQL plans for these
alone.
"""

from importlib import import_module

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_volumes = import_module("microfin_tools.migrations.versions.0008_volumes")
_archive = import_module("microfin_tools.migrations.versions.0009_archive")

# As `volume_summaries`, but of accounts. Numbers are random, so their first five digits choose a
# chunk evenly; and since `entries` is ordered by number, a piece of a summary is one range of it.
TABLES = """
CREATE TABLE account_summaries (
    chunk integer NOT NULL,
    volume integer NOT NULL,
    bits bit(512) NOT NULL,
    PRIMARY KEY (chunk, volume) INCLUDE (bits)
);
COMMENT ON TABLE account_summaries IS
    'A Bloom filter of the accounts with entries in each full volume, in chunks by the number';
CREATE TRIGGER summaries_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON account_summaries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_summary();

CREATE FUNCTION account_chunk(number text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN left(number, 5)::integer;

CREATE FUNCTION account_bits(number text) RETURNS bit(512)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN operation_bits(md5(number)::uuid);
"""

# Each batch reads this table, and an audit may read it for long.
COLUMN = """
ALTER TABLE volumes ADD COLUMN summed_accounts integer NOT NULL DEFAULT 0
    CHECK (summed_accounts BETWEEN 0 AND 100000);
COMMENT ON COLUMN volumes.summed_accounts IS
    'How many chunks of account_summaries are there for this volume, of 100000';
"""

# A piece has 512 chunks of operations or 400 of accounts: of 4 million outcomes, some 16,000. A
# volume of no more than that, 4 MiB, is one piece. An
# archive sums up all its volumes: none of them changes any more. So a row that is there already,
# of a volume that came back, is right.
SUM_UP = """
CREATE OR REPLACE FUNCTION sum_up_volume() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp SET enable_seqscan = off
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    full_volume integer;
    chunks integer;
    accounts_chunks integer;
    is_small boolean;
    following integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('sum_up_volume')) THEN
        RETURN false;
    END IF;
    SELECT volume, summed_chunks, summed_accounts INTO full_volume, chunks, accounts_chunks
    FROM volumes
    WHERE (summed_chunks < 131072 OR summed_accounts < 100000)
        AND (volume < (SELECT max(volume) FROM volumes) OR EXISTS (SELECT FROM archive))
    ORDER BY volume LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    is_small := pg_relation_size(format('%I.outcomes',
        'volume_' || replace(full_volume::text, '-', 'm'))::regclass) <= 4194304;
    IF chunks < 131072 THEN
        following := CASE WHEN is_small THEN 131072 ELSE chunks + 512 END;
        EXECUTE format('INSERT INTO volume_summaries (chunk, volume, bits)
            SELECT operation_chunk(operation_id), volume, bit_or(operation_bits(operation_id))
            FROM outcomes WHERE volume = %s AND operation_id BETWEEN %L AND %L
            GROUP BY operation_chunk(operation_id), volume
            ON CONFLICT DO NOTHING', full_volume,
            (lpad(to_hex(chunks::bigint << 15), 8, '0') || repeat('0', 24))::uuid,
            (lpad(to_hex((following::bigint << 15) - 1), 8, '0') || repeat('f', 24))::uuid);
        UPDATE volumes SET summed_chunks = following WHERE volume = full_volume;
    ELSE
        following := CASE WHEN is_small THEN 100000 ELSE accounts_chunks + 400 END;
        EXECUTE format('INSERT INTO account_summaries (chunk, volume, bits)
            SELECT account_chunk(account), %s, bit_or(account_bits(account))
            FROM (SELECT DISTINCT account FROM entries
                WHERE volume = %s AND account >= %L AND account < %L) AS those
            GROUP BY account_chunk(account)
            ON CONFLICT DO NOTHING', full_volume, full_volume,
            lpad(accounts_chunks::text, 5, '0'),
            CASE WHEN following < 100000 THEN lpad(following::text, 5, '0') ELSE ':' END);
        UPDATE volumes SET summed_accounts = following WHERE volume = full_volume;
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION sum_up_volume IS
    'Add a piece of the summaries of the oldest full volume that lacks one; false: nothing to do';
"""

# Each OFFSET keeps this one look-up in the summaries' index for each operation, whatever the
# planner knows of tables.
OPERATIONS = """
CREATE FUNCTION volumes_of_operations(operations uuid[])
    RETURNS TABLE (operation uuid, volume integer)
    LANGUAGE sql STABLE ROWS 10
BEGIN ATOMIC
    SELECT asked.operation, summary.volume
    FROM (
        SELECT it AS operation, operation_chunk(it) AS chunk, operation_bits(it) AS bits
        FROM unnest(operations) AS it OFFSET 0
    ) AS asked
    CROSS JOIN LATERAL (
        SELECT volume_summaries.volume, volume_summaries.bits FROM volume_summaries
        WHERE volume_summaries.chunk = asked.chunk OFFSET 0
    ) AS summary
    WHERE summary.bits & asked.bits = asked.bits
    UNION
    SELECT it, volumes.volume FROM volumes, unnest(operations) AS it
    WHERE volumes.summed_chunks < 131072;
END;
COMMENT ON FUNCTION volumes_of_operations IS
    'The volumes that may have outcomes of operations: all that have, and few others';

CREATE FUNCTION legs_of(operations uuid[]) RETURNS SETOF outcomes LANGUAGE plpgsql STABLE ROWS 3
    SET enable_seqscan = off
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT * FROM outcomes WHERE operation_id = ANY ($1) AND volume = ANY (%L::integer[])',
        ARRAY(SELECT DISTINCT volume FROM volumes_of_operations(operations))) USING operations;
END
$$;
COMMENT ON FUNCTION legs_of IS 'The outcomes of all legs of operations, from all volumes';

CREATE FUNCTION decided_before(operations uuid[], legs text[], own_volume integer)
    RETURNS boolean LANGUAGE plpgsql
AS $$
DECLARE
    perhaps record;
    decided boolean;
BEGIN
    FOR perhaps IN
        SELECT volume, array_agg(operation) AS these FROM volumes_of_operations(operations)
        WHERE volume < own_volume GROUP BY volume
    LOOP
        EXECUTE format('SELECT EXISTS (
            SELECT FROM unnest($1, $2) AS row (operation_id, leg)
            WHERE row.operation_id = ANY ($3) AND EXISTS (
                SELECT FROM outcomes WHERE outcomes.operation_id = row.operation_id
                    AND outcomes.leg = row.leg AND outcomes.volume = %s OFFSET 0))', perhaps.volume)
        INTO decided USING operations, legs, perhaps.these;
        IF decided THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;
COMMENT ON FUNCTION decided_before IS
    'Whether a volume before this one has one of these legs of operations';
"""

# An account's entries are numbered without gaps from volume to volume, and their times never go
# back. So a page begins in the newest volume that may have the account and goes down; and the
# volume in which a moment lies is found by halves, as the entry in it is.
ENTRIES = """
CREATE FUNCTION volumes_of_account(number text) RETURNS integer[]
    LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(array_agg(volume ORDER BY volume DESC), '{}')
    FROM (
        SELECT volume FROM account_summaries
        WHERE chunk = account_chunk(number) AND bits & account_bits(number) = account_bits(number)
        UNION
        SELECT volume FROM volumes WHERE summed_accounts < 100000
    ) AS those;
END;
COMMENT ON FUNCTION volumes_of_account IS
    'The volumes that may have entries of an account, the newest first: all that have, few others';

CREATE FUNCTION entries_of(
    number text, above bigint, below bigint, of_kind text, at_most integer
) RETURNS SETOF entries LANGUAGE plpgsql STABLE SET enable_seqscan = off
AS $$
DECLARE
    those integer;
    missing integer := at_most;
    here integer;
    first_here bigint;
BEGIN
    FOREACH those IN ARRAY volumes_of_account(number) LOOP
        RETURN QUERY EXECUTE format('SELECT * FROM entries WHERE volume = %s AND account = $1
            AND seq > $2 AND seq < $3 AND ($4::text IS NULL OR kind = $4)
            ORDER BY seq DESC LIMIT $5', those) USING number, above, below, of_kind, missing;
        GET DIAGNOSTICS here = ROW_COUNT;
        missing := missing - here;
        EXIT WHEN missing <= 0;
        EXECUTE format('SELECT min(seq) FROM entries WHERE volume = %s AND account = $1', those)
        INTO first_here USING number;
        EXIT WHEN first_here <= greatest(above, 0) + 1;
    END LOOP;
END
$$;
COMMENT ON FUNCTION entries_of IS
    'Entries of an account with numbers between two, newest first, from all volumes';

CREATE FUNCTION last_seq_before(number text, moment timestamptz) RETURNS bigint
    LANGUAGE plpgsql STABLE SET enable_seqscan = off
AS $$
DECLARE
    those integer[] := volumes_of_account(number);
    low integer := 1;
    high integer := cardinality(those) + 1;
    middle integer;
    first_at timestamptz;
    found bigint;
BEGIN
    -- The newest volume in which the account's first entry is before the moment: all that are
    -- left of `low` begin later, `high` and what is right of it do not.
    WHILE low < high LOOP
        middle := (low + high) / 2;
        EXECUTE format('SELECT at FROM entries WHERE volume = %s AND account = $1
            ORDER BY seq LIMIT 1', those[middle]) INTO first_at USING number;
        IF first_at IS NULL THEN
            those := those[1 : middle - 1] || those[middle + 1 : cardinality(those)];
            high := high - 1;
        ELSIF first_at < moment THEN
            high := middle;
        ELSE
            low := middle + 1;
        END IF;
    END LOOP;
    IF low > cardinality(those) THEN
        RETURN 0;
    END IF;
    EXECUTE format('
        WITH RECURSIVE search (low, high) AS (
            SELECT min(seq), max(seq) FROM entries WHERE volume = %1$s AND account = $1
            UNION ALL
            SELECT CASE WHEN earlier THEN middle ELSE low END,
                CASE WHEN earlier THEN high ELSE middle - 1 END
            FROM search
            CROSS JOIN LATERAL (SELECT (low + high + 1) / 2 AS middle) AS half
            CROSS JOIN LATERAL (
                SELECT at < $2 AS earlier FROM entries
                WHERE volume = %1$s AND account = $1 AND seq = middle
            ) AS entry
            WHERE low < high
        )
        SELECT low FROM search WHERE low = high', those[low]) INTO found USING number, moment;
    RETURN found;
END
$$;
COMMENT ON FUNCTION last_seq_before IS
    'The number of an account''s last entry before a moment, 0 where there is none';
"""

_OF_BEFORE = _volumes.WRITE_BATCH
_LOOK_UP_OF_BEFORE = _OF_BEFORE[
    _OF_BEFORE.index("        -- The key of the volume") : _OF_BEFORE.index(
        "    IF cardinality(entry_accounts) > 0 THEN"
    )
]
_LOOK_UP = """\
        -- The key of the volume refuses a leg that is in it; here are the volumes before it.
        IF EXISTS (SELECT FROM volumes WHERE volume < own_volume) THEN
            IF decided_before(outcome_operations, outcome_legs, own_volume) THEN
                RAISE EXCEPTION 'a leg of this batch was decided in an earlier volume'
                    USING ERRCODE = 'unique_violation', CONSTRAINT = 'outcomes_pkey';
            END IF;
        END IF;
    END IF;

"""
_VARIABLES_OF_BEFORE = """
    oldest_volume integer;
    first_unsummed integer;
    perhaps uuid[];
"""
_SUMMARIES_GO = "    DELETE FROM volume_summaries WHERE volume = archived;\n"


def _with(text: str, old: str, new: str) -> str:
    """Return `text` with `new` for `old`. Raises ValueError if `old` is not there once."""
    before, after = text.split(old)
    return before + new + after


WRITE_BATCH = _with(_with(_OF_BEFORE, _LOOK_UP_OF_BEFORE, _LOOK_UP), _VARIABLES_OF_BEFORE, "\n")

IN_THE_LEDGER = _with(
    _archive.IN_THE_LEDGER,
    _SUMMARIES_GO,
    _SUMMARIES_GO + _SUMMARIES_GO.replace("volume_summaries", "account_summaries"),
).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")

GRANTS = """
REVOKE EXECUTE ON FUNCTION account_chunk, account_bits, volumes_of_operations, legs_of,
    decided_before, volumes_of_account, entries_of, last_seq_before FROM PUBLIC;
GRANT SELECT ON volume_summaries, account_summaries TO microfin_api, microfin_auditor;
GRANT EXECUTE ON FUNCTION operation_chunk, operation_bits TO microfin_api, microfin_auditor;
GRANT EXECUTE ON FUNCTION volumes_of_operations, legs_of
    TO microfin_worker, microfin_api, microfin_auditor;
GRANT EXECUTE ON FUNCTION decided_before TO microfin_worker;
GRANT EXECUTE ON FUNCTION account_chunk, account_bits, volumes_of_account, entries_of,
    last_seq_before TO microfin_api, microfin_auditor;
"""


def upgrade() -> None:
    """Create the look-ups, and let batches and archives use them."""
    op.execute(TABLES)
    _volumes.when_nobody_is_in_the_way(COLUMN, op.get_bind().begin_nested)
    op.execute(SUM_UP)
    op.execute(OPERATIONS)
    op.execute(ENTRIES)
    op.execute(WRITE_BATCH)
    op.execute(IN_THE_LEDGER)
    op.execute(GRANTS)
