"""The archive: old volumes leave the ledger, and archived balances say where it goes on.

See docs/adr/0045-archive.md. All tables are new, so nobody has to wait.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A database is a shard (it has a row in `routing`) or the archive of one (a row in `archive`).
# Without a row in `routing` no process of any release takes it for a shard.
IDENTITY = """
CREATE TABLE shard_identity (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE shard_identity IS
    'Distinguishes this shard from those of all ledgers; its backups have the same';
INSERT INTO shard_identity DEFAULT VALUES;

CREATE TABLE archive (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    shard_id uuid NOT NULL,
    shard integer NOT NULL CHECK (shard >= 0 AND shard < shards),
    shards integer NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE archive IS 'Whose archive this database is; a shard of a ledger has no row here';

CREATE FUNCTION refuse_shard_and_archive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM archive) AND TG_TABLE_NAME = 'routing' THEN
        RAISE EXCEPTION 'this database is an archive; it cannot be a shard of a ledger'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF EXISTS (SELECT FROM routing) AND TG_TABLE_NAME = 'archive' THEN
        RAISE EXCEPTION 'this database is a shard of a ledger; it cannot be an archive'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER archive_is_of_no_shard BEFORE INSERT ON archive
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_shard_and_archive();
"""

TABLES = """
CREATE TABLE archived_volumes (
    volume integer PRIMARY KEY,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    outcomes bigint NOT NULL,
    entries bigint NOT NULL,
    outcomes_digest numeric NOT NULL,
    entries_digest numeric NOT NULL,
    first_at timestamptz,
    last_at timestamptz
);
COMMENT ON TABLE archived_volumes IS 'The volumes that are in the archive and no longer here';
COMMENT ON COLUMN archived_volumes.last_at IS 'The time of its latest outcome';

CREATE TABLE archived_accounts (
    number text COLLATE "C" PRIMARY KEY,
    owner uuid NOT NULL,
    currency text NOT NULL,
    opened_at timestamptz NOT NULL,
    balance bigint NOT NULL CHECK (balance >= 0),
    seq bigint NOT NULL CHECK (seq >= 0),
    entry_time timestamptz NOT NULL,
    version bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'frozen', 'closed'))
) WITH (fillfactor = 70);
COMMENT ON TABLE archived_accounts IS
    'Each account as the newest archived volume left it: its entries here go on from there';

CREATE TABLE archived_contra_balances (
    partition integer NOT NULL,
    contra text NOT NULL CHECK (contra IN ('cash', 'in_transit')),
    currency text NOT NULL,
    balance numeric NOT NULL,
    PRIMARY KEY (partition, contra, currency)
);
COMMENT ON TABLE archived_contra_balances IS
    'The contra balances as the newest archived volume left them';

CREATE TABLE archived_partitions (
    partition integer PRIMARY KEY,
    outcomes bigint NOT NULL,
    last_offset bigint NOT NULL
);
COMMENT ON TABLE archived_partitions IS 'What each partition had decided by then';
"""

# The function that may change these rows says so by a setting: so nobody changes them by accident.
# The owner of the tables could also drop the triggers.
ONLY_BY_THE_JOB = """
CREATE FUNCTION refuse_change_but_archiving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('microfin.archiving', true) IS DISTINCT FROM 'yes' THEN
        RAISE EXCEPTION '% changes only by `microfin archive`: % is refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER archived_volumes_are_immutable
    BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON archived_volumes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_but_archiving();
CREATE TRIGGER archived_accounts_are_immutable
    BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON archived_accounts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_but_archiving();
CREATE TRIGGER archived_contra_balances_are_immutable
    BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON archived_contra_balances
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_but_archiving();
CREATE TRIGGER archived_partitions_are_immutable
    BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON archived_partitions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_but_archiving();

-- The rows of a summary are deleted with their volume, and at no other time.
CREATE FUNCTION refuse_change_of_summary() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE'
            OR current_setting('microfin.archiving', true) IS DISTINCT FROM 'yes' THEN
        RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
"""

# These tables are in use: a trigger may be added or replaced while others read them.
TRIGGERS_OF_TABLES_IN_USE = """
CREATE OR REPLACE TRIGGER summaries_are_immutable
    BEFORE UPDATE OR DELETE OR TRUNCATE ON volume_summaries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_summary();
CREATE TRIGGER routing_is_of_no_archive BEFORE INSERT ON routing
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_shard_and_archive();
"""

# What one volume did to accounts and contra accounts. A volume ends for all partitions of a shard
# in one moment, so its last entries are the state of the shard then. The same functions run on both
# sides: in the ledger they change the archived balances, in the archive its accounts.
CHANGES = """
CREATE FUNCTION volume_accounts(of_volume integer) RETURNS TABLE (
    number text, owner uuid, currency text, opened_at timestamptz,
    balance bigint, seq bigint, entry_time timestamptz, states_set bigint
) LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    home text := 'volume_' || replace(of_volume::text, '-', 'm');
BEGIN
    RETURN QUERY EXECUTE format('
        SELECT number, opened.user_id, opened.currency, opened.at,
            last.balance_after, last.seq, last.at, coalesce(sets.times, 0)
        FROM (
            SELECT account AS number, user_id, currency, at FROM %1$I.outcomes
            WHERE kind = ''open'' AND status = ''settled''
        ) AS opened
        FULL JOIN (
            SELECT DISTINCT ON (account) account AS number, seq, balance_after, at
            FROM %1$I.entries ORDER BY account, seq DESC
        ) AS last USING (number)
        FULL JOIN (
            SELECT account AS number, count(*) AS times FROM %1$I.outcomes
            WHERE kind = ''set_state'' AND status = ''settled'' GROUP BY account
        ) AS sets USING (number)', home);
END
$$;
COMMENT ON FUNCTION volume_accounts IS
    'The accounts that a volume opened or changed, and how they were at its end';

CREATE FUNCTION volume_contra_changes(of_volume integer) RETURNS TABLE (
    partition integer, contra text, currency text, change numeric
) LANGUAGE plpgsql STABLE SET jit = off AS $$
BEGIN
    RETURN QUERY EXECUTE format('
        SELECT e.partition, e.contra, a.currency, -sum(e.amount)
        FROM %I.entries e JOIN accounts a ON a.number = e.account
        GROUP BY e.partition, e.contra, a.currency',
        'volume_' || replace(of_volume::text, '-', 'm'));
END
$$;
COMMENT ON FUNCTION volume_contra_changes IS 'By how much a volume changed each contra balance';
"""

# The last step, `drop_archived_volume`, needs the tables for itself; all that takes time comes
# before it.
IN_THE_LEDGER = """
CREATE FUNCTION note_archived_volume(
    archived integer, of_outcomes bigint, of_entries bigint,
    digest_of_outcomes numeric, digest_of_entries numeric,
    set_accounts text[], set_states text[]
) RETURNS void LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    home text := 'volume_' || replace(archived::text, '-', 'm');
BEGIN
    IF archived IS DISTINCT FROM (SELECT min(volume) FROM volumes)
            OR archived = (SELECT max(volume) FROM volumes) THEN
        RAISE EXCEPTION 'volume % is not the oldest, or is the newest', archived
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM set_config('microfin.archiving', 'yes', true);
    EXECUTE format('INSERT INTO archived_volumes
        SELECT %L, clock_timestamp(), %L, %L, %L, %L, min(at), max(at) FROM %I.outcomes',
        archived, of_outcomes, of_entries, digest_of_outcomes, digest_of_entries, home);

    UPDATE archived_accounts AS it
    SET balance = coalesce(change.balance, it.balance), seq = coalesce(change.seq, it.seq),
        entry_time = coalesce(change.entry_time, it.entry_time),
        version = it.version + coalesce(change.seq - it.seq, 0) + change.states_set
    FROM volume_accounts(archived) AS change
    WHERE it.number = change.number AND change.opened_at IS NULL;
    INSERT INTO archived_accounts
    SELECT number, owner, currency, opened_at, coalesce(balance, 0), coalesce(seq, 0),
        coalesce(entry_time, opened_at), 1 + coalesce(seq, 0) + states_set, 'open'
    FROM volume_accounts(archived) WHERE opened_at IS NOT NULL;
    UPDATE archived_accounts AS it SET state = row.state
    FROM unnest(set_accounts, set_states) AS row (number, state) WHERE it.number = row.number;

    INSERT INTO archived_contra_balances SELECT * FROM volume_contra_changes(archived)
    ON CONFLICT ON CONSTRAINT archived_contra_balances_pkey DO UPDATE
        SET balance = archived_contra_balances.balance + excluded.balance;
    EXECUTE format('INSERT INTO archived_partitions
        SELECT partition, count(*), max(log_offset) FROM %I.outcomes GROUP BY partition
        ON CONFLICT (partition) DO UPDATE
        SET outcomes = archived_partitions.outcomes + excluded.outcomes,
            last_offset = greatest(archived_partitions.last_offset, excluded.last_offset)', home);

    DELETE FROM volume_summaries WHERE volume = archived;
    DELETE FROM volumes WHERE volume = archived;
    PERFORM set_config('microfin.archiving', '', true);
END
$$;
COMMENT ON FUNCTION note_archived_volume IS
    'Let the archived balances go on to the end of the oldest volume, which is in the archive';

CREATE FUNCTION drop_archived_volume(archived integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    home text := 'volume_' || replace(archived::text, '-', 'm');
BEGIN
    -- Not the other volumes: a vacuum of one of them is in nobody's way.
    LOCK TABLE ONLY outcomes, ONLY entries IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('ALTER TABLE outcomes DETACH PARTITION %I.outcomes', home);
    EXECUTE format('ALTER TABLE entries DETACH PARTITION %I.entries', home);
    EXECUTE format('DROP TABLE %1$I.outcomes, %1$I.entries', home);
    EXECUTE format('DROP SCHEMA %I', home);
END
$$;
COMMENT ON FUNCTION drop_archived_volume IS 'Remove the tables of a volume from the ledger';
"""

IN_THE_ARCHIVE = """
CREATE FUNCTION take_volume_over(
    archived integer, set_accounts text[], set_states text[]
) RETURNS void LANGUAGE plpgsql SET jit = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM archive) THEN
        RAISE EXCEPTION 'this database is no archive'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF archived <= (SELECT max(volume) FROM volumes) THEN
        RAISE EXCEPTION 'volume % is not newer than those of this archive', archived
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM add_volume(archived);
    UPDATE accounts AS it
    SET balance = coalesce(change.balance, it.balance), seq = coalesce(change.seq, it.seq),
        entry_time = coalesce(change.entry_time, it.entry_time),
        version = it.version + coalesce(change.seq - it.seq, 0) + change.states_set
    FROM volume_accounts(archived) AS change
    WHERE it.number = change.number AND change.opened_at IS NULL;
    INSERT INTO accounts (
        number, owner, currency, opened_at, balance, seq, entry_time, version, state)
    SELECT number, owner, currency, opened_at, coalesce(balance, 0), coalesce(seq, 0),
        coalesce(entry_time, opened_at), 1 + coalesce(seq, 0) + states_set, 'open'
    FROM volume_accounts(archived) WHERE opened_at IS NOT NULL;
    UPDATE accounts AS it SET state = row.state
    FROM unnest(set_accounts, set_states) AS row (number, state) WHERE it.number = row.number;
    INSERT INTO contra_balances SELECT * FROM volume_contra_changes(archived)
    ON CONFLICT ON CONSTRAINT contra_balances_pkey DO UPDATE
        SET balance = contra_balances.balance + excluded.balance;
END
$$;
COMMENT ON FUNCTION take_volume_over IS
    'Add the copied tables of a volume to this archive, and let its accounts go on to its end';
"""

GRANTS = """
REVOKE EXECUTE ON FUNCTION refuse_shard_and_archive, refuse_change_but_archiving,
    refuse_change_of_summary, volume_accounts, volume_contra_changes, note_archived_volume,
    drop_archived_volume, take_volume_over FROM PUBLIC;
GRANT SELECT ON shard_identity, archive, archived_volumes, archived_accounts
    TO microfin_api, microfin_auditor;
GRANT SELECT ON archived_contra_balances, archived_partitions TO microfin_auditor;
"""


def upgrade() -> None:
    """Create the tables and functions of the archive and of what the ledger keeps of it."""
    op.execute(IDENTITY)
    op.execute(TABLES)
    op.execute(ONLY_BY_THE_JOB)
    op.execute(CHANGES)
    op.execute(IN_THE_LEDGER)
    op.execute(IN_THE_ARCHIVE)
    op.execute(GRANTS)
    op.execute(TRIGGERS_OF_TABLES_IN_USE)
