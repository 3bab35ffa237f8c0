"""Volumes: the ledger's growing tables in pieces, so that random keys stay in a small index.

See docs/adr/0044-volumes.md. What was there before becomes volume 0, as it is. Only the last step
locks others out, and only for as long as it takes to give tables new names; it waits for its turn
without standing in anybody's way.
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import structlog
from alembic import op
from sqlalchemy.exc import OperationalError

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

logger = structlog.get_logger(__name__)

_LOCK_WAIT: Final = "500ms"
_PAUSE_SECONDS: Final = 1.0
_LOCK_NOT_AVAILABLE: Final = "55P03"

# A constant default of a new column writes no row. The constraint lets the tables become partitions
# later without a scan.
COLUMN = """
DO $$ BEGIN
    ALTER TABLE {table}
        ADD COLUMN IF NOT EXISTS volume integer NOT NULL DEFAULT 0,
        DROP CONSTRAINT IF EXISTS in_volume_0;
    ALTER TABLE {table} ADD CONSTRAINT in_volume_0 CHECK (volume = 0) NOT VALID;
END $$;
"""

VALIDATE = "ALTER TABLE {table} VALIDATE CONSTRAINT in_volume_0"

# The names of a volume's constraints are those of before, because each volume is a schema: so the
# release before recognises a repeat by its constraint's name as ever.
TABLES = """
LOCK TABLE partitions, outcomes, entries IN ACCESS EXCLUSIVE MODE;

CREATE SCHEMA volume_0;
ALTER TABLE outcomes SET SCHEMA volume_0;
ALTER TABLE entries SET SCHEMA volume_0;
REVOKE ALL ON volume_0.outcomes, volume_0.entries
    FROM microfin_worker, microfin_api, microfin_auditor;

CREATE TABLE outcomes (LIKE volume_0.outcomes INCLUDING CONSTRAINTS) PARTITION BY LIST (volume);
CREATE TABLE entries (LIKE volume_0.entries INCLUDING CONSTRAINTS) PARTITION BY LIST (volume);
-- A batch that waits for this is in the function of before, which names no volume: it is of this.
ALTER TABLE outcomes DROP CONSTRAINT in_volume_0, ALTER volume SET DEFAULT 0;
ALTER TABLE entries DROP CONSTRAINT in_volume_0, ALTER volume SET DEFAULT 0;
ALTER TABLE outcomes ATTACH PARTITION volume_0.outcomes FOR VALUES IN (0);
ALTER TABLE entries ATTACH PARTITION volume_0.entries FOR VALUES IN (0);
ALTER TABLE volume_0.outcomes DROP CONSTRAINT in_volume_0, ALTER volume DROP DEFAULT;
ALTER TABLE volume_0.entries DROP CONSTRAINT in_volume_0, ALTER volume DROP DEFAULT;
COMMENT ON TABLE outcomes IS 'The immutable record of each decided leg; amounts in minor units';
COMMENT ON TABLE entries IS 'The immutable statement lines of all accounts; amounts in minor units';

CREATE TRIGGER outcomes_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON outcomes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON outcomes, entries TO microfin_worker;
GRANT SELECT ON outcomes, entries TO microfin_api, microfin_auditor;

CREATE TABLE volumes (
    volume integer PRIMARY KEY,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    summed_chunks integer NOT NULL DEFAULT 0 CHECK (summed_chunks BETWEEN 0 AND 131072)
);
COMMENT ON TABLE volumes IS 'The pieces of outcomes and entries; only the newest is written to';
COMMENT ON COLUMN volumes.summed_chunks IS
    'How many chunks of volume_summaries are there for this volume, of 131072';
INSERT INTO volumes (volume) VALUES (0);

CREATE TABLE volume_summaries (
    chunk integer NOT NULL,
    volume integer NOT NULL,
    bits bit(512) NOT NULL,
    PRIMARY KEY (chunk, volume) INCLUDE (bits)
);
COMMENT ON TABLE volume_summaries IS
    'A Bloom filter of the operations of each full volume, in chunks by the operation id';
CREATE TRIGGER summaries_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON volume_summaries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT ON volume_summaries TO microfin_worker;
GRANT SELECT ON volumes TO microfin_worker, microfin_api, microfin_auditor;

ALTER TABLE routing
    ADD COLUMN outcomes_per_volume bigint NOT NULL DEFAULT 4000000 CHECK (outcomes_per_volume >= 1);
ALTER TABLE partitions ADD COLUMN volume integer NOT NULL DEFAULT 0,
    ADD COLUMN outcomes_in_volume bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN partitions.volume IS 'The volume that this partition writes to: the newest';
GRANT UPDATE (outcomes_in_volume) ON partitions TO microfin_worker;

CREATE FUNCTION begin_in_newest_volume() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.volume := (SELECT max(volume) FROM volumes);
    RETURN NEW;
END
$$;
CREATE TRIGGER partitions_begin_in_newest_volume BEFORE INSERT ON partitions
    FOR EACH ROW EXECUTE FUNCTION begin_in_newest_volume();
"""

# Who opens a volume needs the owner's rights: a worker gets them for this alone. All partitions
# turn to it in one transaction, so nothing is added to a volume that is not the newest. The lock
# waits for the batches under way and lets no other begin; it comes last, so that they wait for a
# moment only.
OPEN_VOLUME = """
CREATE FUNCTION make_volume(number integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    home text := 'volume_' || replace(number::text, '-', 'm');
    parent text;
BEGIN
    EXECUTE format('CREATE SCHEMA %I', home);
    FOREACH parent IN ARRAY ARRAY['outcomes', 'entries'] LOOP
        EXECUTE format('CREATE TABLE %I.%I (LIKE %I INCLUDING CONSTRAINTS)', home, parent, parent);
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I.%I
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', parent || '_are_immutable', home,
            parent);
    END LOOP;
END
$$;
COMMENT ON FUNCTION make_volume IS
    'Make the tables of a volume without keys, not yet part of the ledger';

CREATE FUNCTION add_volume(number integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    home text := 'volume_' || replace(number::text, '-', 'm');
    parent text;
BEGIN
    EXECUTE format('ALTER TABLE %I.outcomes
        ADD CONSTRAINT outcomes_pkey PRIMARY KEY (operation_id, leg)', home);
    EXECUTE format('CREATE INDEX outcomes_log ON %I.outcomes (partition, log_offset)', home);
    EXECUTE format('CREATE INDEX outcomes_opened ON %I.outcomes (account)
        WHERE kind = ''open'' AND status = ''settled''', home);
    EXECUTE format('ALTER TABLE %I.entries
        ADD CONSTRAINT entries_pkey PRIMARY KEY (account, seq)', home);
    FOREACH parent IN ARRAY ARRAY['outcomes', 'entries'] LOOP
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I.%I FOR VALUES IN (%L)', parent, home,
            parent, number);
    END LOOP;
    INSERT INTO volumes (volume) VALUES (number);
END
$$;
COMMENT ON FUNCTION add_volume IS 'Give the tables of a volume their keys; add it to the ledger';

CREATE FUNCTION turn_volume() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp SET lock_timeout = '300ms'
AS $$
DECLARE
    following integer;
BEGIN
    -- First the lock: who waits for it would look at numbers of before.
    IF NOT pg_try_advisory_xact_lock(hashtext('turn_volume')) THEN
        RETURN NULL;
    END IF;
    IF (SELECT coalesce(sum(outcomes_in_volume), 0) FROM partitions)
            < (SELECT outcomes_per_volume FROM routing) THEN
        RETURN NULL;
    END IF;
    following := (SELECT max(volume) + 1 FROM volumes);
    PERFORM make_volume(following);
    PERFORM add_volume(following);
    LOCK TABLE partitions IN EXCLUSIVE MODE;
    UPDATE partitions SET volume = following, outcomes_in_volume = 0;
    RETURN following;
END
$$;
COMMENT ON FUNCTION turn_volume IS
    'If the newest volume is full, let all partitions go on in another, and return its number';

REVOKE EXECUTE ON FUNCTION make_volume, add_volume, turn_volume, begin_in_newest_volume
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION turn_volume TO microfin_worker;
"""

# A Bloom filter in blocks (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom
# Filters, 2007): the first 17 bits of an operation id choose a block of 512 bits, others six bits
# in it; the id is a hash already. The rows of one chunk are neighbours in the index, whatever their
# volume: one look-up finds all volumes that may have decided an operation. With 4 million
# operations in a volume a block has 31 of them, and one look-up in 1,000 finds a volume in vain.
#
# A piece of a summary has 512 chunks: some 16,000 ids, which a slow disk reads well within the
# worker's limit for a statement, also where the first volume is several times as big as the others.
SUMMARIES = """
CREATE FUNCTION operation_chunk(operation uuid) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (get_byte(uuid_send(operation), 0) << 9) | (get_byte(uuid_send(operation), 1) << 1)
        | (get_byte(uuid_send(operation), 2) >> 7);

CREATE FUNCTION operation_bits(operation uuid) RETURNS bit(512)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN {bits};

CREATE FUNCTION sum_up_volume() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp SET enable_seqscan = off
    SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    full_volume integer;
    first_chunk integer;
    after_chunk integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('sum_up_volume')) THEN
        RETURN false;
    END IF;
    SELECT volume, summed_chunks, summed_chunks + 512
    INTO full_volume, first_chunk, after_chunk
    FROM volumes WHERE summed_chunks < 131072 AND volume < (SELECT max(volume) FROM volumes)
    ORDER BY volume LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO volume_summaries (chunk, volume, bits)
    SELECT operation_chunk(operation_id), full_volume, bit_or(operation_bits(operation_id))
    FROM outcomes WHERE volume = full_volume AND operation_id
        BETWEEN (lpad(to_hex(first_chunk::bigint << 15), 8, '0') || repeat('0', 24))::uuid
        AND (lpad(to_hex((after_chunk::bigint << 15) - 1), 8, '0') || repeat('f', 24))::uuid
    GROUP BY operation_chunk(operation_id);
    UPDATE volumes SET summed_chunks = after_chunk WHERE volume = full_volume;
    RETURN true;
END
$$;
COMMENT ON FUNCTION sum_up_volume IS
    'Add a 256th of the summary of the oldest full volume that lacks it; false: nothing to do';

REVOKE EXECUTE ON FUNCTION operation_chunk, operation_bits, sum_up_volume FROM PUBLIC;
GRANT EXECUTE ON FUNCTION operation_chunk, operation_bits, sum_up_volume TO microfin_worker;
"""

_BIT_BYTES: Final = ((2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13))


def _operation_bits() -> str:
    """Return the expression that sets six of 512 bits: nine bits of the id choose each."""
    expression = "repeat('0', 512)::bit(512)"
    for high, low in _BIT_BYTES:
        byte = "get_byte(uuid_send(operation), {})"
        place = f"(({byte.format(high)} & 1) << 8) | {byte.format(low)}"
        expression = f"set_bit({expression}, {place}, 1)"
    return expression


# As in 0002_write_batch.py, but for the volume: that is read from the partition's row, which the
# batch changes anyway. So the call remains as it was, and the release before goes on.
WRITE_BATCH = """
CREATE OR REPLACE FUNCTION write_batch(
    own_partition integer, own_epoch bigint, own_generation bigint, own_partition_count integer,
    own_offset bigint, following_offset bigint, last_fingerprint bytea,

    outcome_operations uuid[], outcome_legs text[], outcome_kinds text[], outcome_statuses text[],
    outcome_accounts text[], outcome_counterparties text[], outcome_users uuid[],
    outcome_amounts bigint[], outcome_currencies text[], outcome_seqs bigint[],
    outcome_balances bigint[], outcome_counterparty_seqs bigint[], outcome_reasons text[],
    outcome_at_accounts text[], outcome_needed bigint[], outcome_available bigint[],
    outcome_body_hashes bytea[], outcome_offsets bigint[], outcome_times bigint[],

    entry_accounts text[], entry_seqs bigint[], entry_amounts bigint[],
    entry_balances_after bigint[], entry_operations uuid[], entry_legs text[], entry_kinds text[],
    entry_contras text[], entry_counterparties text[], entry_times bigint[],

    changed_numbers text[], changed_balances bigint[], changed_states text[],
    changed_seqs bigint[], changed_versions bigint[], changed_entry_times bigint[],
    changed_known_versions bigint[],

    opened_owners uuid[], opened_currencies text[], opened_numbers text[],
    opened_balances bigint[], opened_states text[], opened_seqs bigint[],
    opened_versions bigint[], opened_entry_times bigint[], opened_times bigint[],

    contra_names text[], contra_currencies text[], contra_changes bigint[],

    outbox_offsets bigint[], outbox_steps integer[], outbox_operations uuid[],
    outbox_commands bytea[],

    sent_offsets bigint[], sent_steps integer[],

    quarantined_offsets bigint[], quarantined_times bigint[], quarantined_keys bytea[],
    quarantined_values bytea[], quarantined_reasons text[]
) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
DECLARE
    changed bigint;
    own_volume integer;
    oldest_volume integer;
    first_unsummed integer;
    perhaps uuid[];
BEGIN
    UPDATE partitions
    SET next_offset = following_offset, fingerprint = last_fingerprint,
        touched_at = clock_timestamp(),
        outcomes_in_volume = outcomes_in_volume + cardinality(outcome_operations)
    WHERE partition = own_partition AND epoch = own_epoch AND generation = own_generation
        AND partition_count = own_partition_count AND next_offset = own_offset
    RETURNING volume INTO own_volume;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'partition % is not where this batch was decided', own_partition
            USING ERRCODE = 'MF001';
    END IF;

    IF cardinality(opened_numbers) > 0 THEN
        INSERT INTO accounts (
            number, owner, currency, balance, state, seq, version, entry_time, opened_at)
        SELECT number, owner, currency, balance, state, seq, version, moment(entry_time),
            moment(opened)
        FROM unnest(opened_numbers, opened_owners, opened_currencies, opened_balances,
            opened_states, opened_seqs, opened_versions, opened_entry_times, opened_times)
        AS row (number, owner, currency, balance, state, seq, version, entry_time, opened);
    END IF;

    IF cardinality(outcome_operations) > 0 THEN
        INSERT INTO outcomes (
            operation_id, leg, kind, status, account, counterparty, user_id, amount, currency, seq,
            balance, counterparty_seq, reason, at_account, needed, available, body_hash, partition,
            log_offset, at, volume)
        SELECT operation_id, leg, kind, status, account, counterparty, user_id, amount, currency,
            seq, balance, counterparty_seq, reason, at_account, needed, available, body_hash,
            own_partition, log_offset, moment(time), own_volume
        FROM unnest(outcome_operations, outcome_legs, outcome_kinds, outcome_statuses,
            outcome_accounts, outcome_counterparties, outcome_users, outcome_amounts,
            outcome_currencies, outcome_seqs, outcome_balances, outcome_counterparty_seqs,
            outcome_reasons, outcome_at_accounts, outcome_needed, outcome_available,
            outcome_body_hashes, outcome_offsets, outcome_times)
        AS row (operation_id, leg, kind, status, account, counterparty, user_id, amount, currency,
            seq, balance, counterparty_seq, reason, at_account, needed, available, body_hash,
            log_offset, time);

        -- The key of the volume refuses a leg that is in it; here are the volumes before it.
        SELECT min(volume), coalesce(min(volume) FILTER (WHERE summed_chunks < 131072), own_volume)
        INTO oldest_volume, first_unsummed FROM volumes;
        IF oldest_volume < own_volume THEN
            -- Each OFFSET keeps this a look-up for each leg, whatever the planner knows of tables.
            perhaps := ARRAY(
                SELECT row.operation_id
                FROM (
                    SELECT operation_id, operation_chunk(operation_id) AS chunk,
                        operation_bits(operation_id) AS bits
                    FROM unnest(outcome_operations) AS row (operation_id) OFFSET 0
                ) AS row
                CROSS JOIN LATERAL (
                    SELECT bits FROM volume_summaries
                    WHERE chunk = row.chunk AND volume < own_volume OFFSET 0
                ) AS summary
                WHERE summary.bits & row.bits = row.bits);
            IF first_unsummed < own_volume AND EXISTS (
                SELECT FROM unnest(outcome_operations, outcome_legs) AS row (operation_id, leg)
                WHERE EXISTS (
                    SELECT FROM outcomes WHERE outcomes.operation_id = row.operation_id
                        AND outcomes.leg = row.leg
                        AND volume >= first_unsummed AND volume < own_volume OFFSET 0)
            ) OR cardinality(perhaps) > 0 AND EXISTS (
                SELECT FROM unnest(outcome_operations, outcome_legs) AS row (operation_id, leg)
                WHERE operation_id = ANY (perhaps) AND EXISTS (
                    SELECT FROM outcomes WHERE outcomes.operation_id = row.operation_id
                        AND outcomes.leg = row.leg AND volume < own_volume OFFSET 0)
            ) THEN
                RAISE EXCEPTION 'a leg of this batch was decided in an earlier volume'
                    USING ERRCODE = 'unique_violation', CONSTRAINT = 'outcomes_pkey';
            END IF;
        END IF;
    END IF;

    IF cardinality(entry_accounts) > 0 THEN
        INSERT INTO entries (
            account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            partition, at, volume)
        SELECT account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            own_partition, moment(time), own_volume
        FROM unnest(entry_accounts, entry_seqs, entry_amounts, entry_balances_after,
            entry_operations, entry_legs, entry_kinds, entry_contras, entry_counterparties,
            entry_times)
        AS row (account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            time);
    END IF;

    IF cardinality(changed_numbers) > 0 THEN
        UPDATE accounts SET balance = row.balance, state = row.state, seq = row.seq,
            version = row.version, entry_time = moment(row.entry_time)
        FROM unnest(changed_numbers, changed_balances, changed_states, changed_seqs,
            changed_versions, changed_entry_times, changed_known_versions)
        AS row (number, balance, state, seq, version, entry_time, known_version)
        WHERE accounts.number = row.number AND accounts.version = row.known_version;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> cardinality(changed_numbers) THEN
            RAISE EXCEPTION '% of % accounts are as remembered', changed,
                cardinality(changed_numbers) USING ERRCODE = 'MF002';
        END IF;
    END IF;

    IF cardinality(contra_names) > 0 THEN
        INSERT INTO contra_balances (partition, contra, currency, balance)
        SELECT own_partition, contra, currency, change
        FROM unnest(contra_names, contra_currencies, contra_changes)
        AS row (contra, currency, change)
        ON CONFLICT (partition, contra, currency)
        DO UPDATE SET balance = contra_balances.balance + excluded.balance;
    END IF;

    IF cardinality(outbox_offsets) > 0 THEN
        INSERT INTO outbox (partition, log_offset, step, operation_id, command)
        SELECT own_partition, log_offset, step, operation_id, command
        FROM unnest(outbox_offsets, outbox_steps, outbox_operations, outbox_commands)
        AS row (log_offset, step, operation_id, command);
    END IF;

    IF cardinality(sent_offsets) > 0 THEN
        DELETE FROM outbox USING unnest(sent_offsets, sent_steps) AS sent (log_offset, step)
        WHERE partition = own_partition AND outbox.log_offset = sent.log_offset
            AND outbox.step = sent.step;
    END IF;

    IF cardinality(quarantined_offsets) > 0 THEN
        INSERT INTO quarantine (partition, log_offset, appended_at, key, value, reason)
        SELECT own_partition, log_offset, moment(time), key, value, reason
        FROM unnest(quarantined_offsets, quarantined_times, quarantined_keys, quarantined_values,
            quarantined_reasons)
        AS row (log_offset, time, key, value, reason);
    END IF;
END
$$;
"""


def upgrade() -> None:
    """Make the tables of before volume 0 of partitioned ones, and let batches go to the newest."""
    with op.get_context().autocommit_block():
        for table in ("outcomes", "entries"):
            when_nobody_is_in_the_way(COLUMN.format(table=table), contextlib.nullcontext)
            logger.info("reading all rows once, while others write", table=table)
            op.execute(VALIDATE.format(table=table))
    when_nobody_is_in_the_way(TABLES, op.get_bind().begin_nested)
    op.execute(OPEN_VOLUME)
    op.execute(SUMMARIES.format(bits=_operation_bits()))
    op.execute(WRITE_BATCH)


def when_nobody_is_in_the_way(
    statements: str, attempt: Callable[[], AbstractContextManager[object]]
) -> None:
    """Run statements that need tables for themselves: wait for a moment only, then let others by.

    Who waits for such a lock makes all wait who come later, for as long as a reader takes.
    """
    while True:
        op.execute(f"SET lock_timeout = '{_LOCK_WAIT}'")
        try:
            with attempt():
                op.execute(statements)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            logger.info("others use the tables; trying again", seconds=_PAUSE_SECONDS)
        else:
            return
        finally:
            op.execute("SET lock_timeout = DEFAULT")
        time.sleep(_PAUSE_SECONDS)
