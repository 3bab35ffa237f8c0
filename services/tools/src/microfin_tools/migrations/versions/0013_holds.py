"""Accounts have holds: money that is set aside.

See docs/adr/0049-holds.md. `held` is 0 and the new columns of outcomes are null until there is a
hold, so nothing is written anew. The constraint of `accounts` keeps what is held from being spent,
also by a worker of the release before, which knows nothing of holds.

As in 0011, the function of before stays beside the new one.
"""

import contextlib
from importlib import import_module

import structlog
from alembic import op
from sqlalchemy import text

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

logger = structlog.get_logger(__name__)

_volumes = import_module("microfin_tools.migrations.versions.0008_volumes")
_archive = import_module("microfin_tools.migrations.versions.0009_archive")
_look_ups = import_module("microfin_tools.migrations.versions.0010_look_ups")
_notes = import_module("microfin_tools.migrations.versions.0011_notes")
_attempts = import_module("microfin_tools.migrations.versions.0012_attempts")
_with = _look_ups._with  # noqa: SLF001 - a migration stands on those before it

_KINDS = (
    "'open', 'deposit', 'withdraw', 'transfer', 'set_state', 'hold', 'capture', 'release', 'expire'"
)

# Each is done again if the migration was broken off.
ACCOUNTS = """
ALTER TABLE accounts ADD COLUMN IF NOT EXISTS held bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT IF EXISTS accounts_held_check,
    ADD CONSTRAINT accounts_held_check CHECK (held >= 0 AND held <= balance) NOT VALID;
COMMENT ON COLUMN accounts.held IS 'The part of the balance that holds have set aside';
"""

OUTCOMES = f"""
ALTER TABLE outcomes ADD COLUMN IF NOT EXISTS held bigint, ADD COLUMN IF NOT EXISTS hold uuid,
    ADD COLUMN IF NOT EXISTS held_change bigint, ADD COLUMN IF NOT EXISTS hold_left bigint,
    ADD COLUMN IF NOT EXISTS ends_at timestamptz,
    DROP CONSTRAINT IF EXISTS outcomes_kind_check,
    ADD CONSTRAINT outcomes_kind_check CHECK (kind IN ({_KINDS})) NOT VALID;
COMMENT ON COLUMN outcomes.held IS
    'What holds have set aside on the account after this leg, or when it was rejected; null: 0';
COMMENT ON COLUMN outcomes.hold IS 'The operation that made the hold which this one is about';
COMMENT ON COLUMN outcomes.held_change IS 'By how much this leg changed held; null: 0';
COMMENT ON COLUMN outcomes.hold_left IS 'What the hold had left after this leg';
COMMENT ON COLUMN outcomes.ends_at IS 'When the hold that this operation made ends by itself';
"""

VALIDATE = (
    "ALTER TABLE accounts VALIDATE CONSTRAINT accounts_held_check",
    "ALTER TABLE outcomes VALIDATE CONSTRAINT outcomes_kind_check",
)

TABLE = """
CREATE TABLE holds (
    operation_id uuid PRIMARY KEY,
    account text COLLATE "C" NOT NULL,
    receiver text COLLATE "C" NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    amount_left bigint NOT NULL CHECK (amount_left > 0 AND amount_left <= amount),
    ends_at timestamptz NOT NULL
);
COMMENT ON TABLE holds IS 'The open holds; what ended the others is in outcomes';
COMMENT ON COLUMN holds.operation_id IS 'The operation that made the hold';
COMMENT ON COLUMN holds.receiver IS 'The account that captures pay; empty: cash';
CREATE INDEX holds_account ON holds (account, ends_at, operation_id);
CREATE INDEX holds_end ON holds (ends_at, operation_id);

ALTER TABLE archived_accounts ADD COLUMN held bigint NOT NULL DEFAULT 0;
"""


def _quoted(body: str) -> str:
    return body.replace("'", "''")


# The columns of holds come as empty arrays where no row of the batch is about one: an array that is
# shorter than the others is filled up with nulls.
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
    outcome_references text[], outcome_metadata jsonb[], outcome_held bigint[],
    outcome_holds uuid[], outcome_held_changes bigint[], outcome_holds_left bigint[],
    outcome_ends bigint[],

    entry_accounts text[], entry_seqs bigint[], entry_amounts bigint[],
    entry_balances_after bigint[], entry_operations uuid[], entry_legs text[], entry_kinds text[],
    entry_contras text[], entry_counterparties text[], entry_times bigint[],
    entry_references text[],

    changed_numbers text[], changed_balances bigint[], changed_states text[],
    changed_seqs bigint[], changed_versions bigint[], changed_entry_times bigint[],
    changed_known_versions bigint[], changed_held bigint[],

    opened_owners uuid[], opened_currencies text[], opened_numbers text[],
    opened_balances bigint[], opened_states text[], opened_seqs bigint[],
    opened_versions bigint[], opened_entry_times bigint[], opened_times bigint[],
    opened_held bigint[],

    contra_names text[], contra_currencies text[], contra_changes bigint[],

    outbox_offsets bigint[], outbox_steps integer[], outbox_operations uuid[],
    outbox_commands bytea[],

    sent_offsets bigint[], sent_steps integer[],

    hold_operations uuid[], hold_accounts text[], hold_receivers text[], hold_amounts bigint[],
    hold_amounts_left bigint[], hold_ends bigint[],

    quarantined_offsets bigint[], quarantined_times bigint[], quarantined_keys bytea[],
    quarantined_values bytea[], quarantined_reasons text[]
) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
DECLARE
    changed bigint;
    own_volume integer;
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
            number, owner, currency, balance, state, seq, version, entry_time, opened_at, held)
        SELECT number, owner, currency, balance, state, seq, version, moment(entry_time),
            moment(opened), coalesce(held, 0)
        FROM unnest(opened_numbers, opened_owners, opened_currencies, opened_balances,
            opened_states, opened_seqs, opened_versions, opened_entry_times, opened_times,
            opened_held)
        AS row (number, owner, currency, balance, state, seq, version, entry_time, opened, held);
    END IF;

    IF cardinality(outcome_operations) > 0 THEN
        INSERT INTO outcomes (
            operation_id, leg, kind, status, account, counterparty, user_id, amount, currency, seq,
            balance, counterparty_seq, reason, at_account, needed, available, body_hash, partition,
            log_offset, at, volume, reference, metadata, held, hold, held_change, hold_left,
            ends_at)
        SELECT operation_id, leg, kind, status, account, counterparty, user_id, amount, currency,
            seq, balance, counterparty_seq, reason, at_account, needed, available, body_hash,
            own_partition, log_offset, moment(time), own_volume, reference, metadata, held, hold,
            held_change, hold_left, moment(ends)
        FROM unnest(outcome_operations, outcome_legs, outcome_kinds, outcome_statuses,
            outcome_accounts, outcome_counterparties, outcome_users, outcome_amounts,
            outcome_currencies, outcome_seqs, outcome_balances, outcome_counterparty_seqs,
            outcome_reasons, outcome_at_accounts, outcome_needed, outcome_available,
            outcome_body_hashes, outcome_offsets, outcome_times, outcome_references,
            outcome_metadata, outcome_held, outcome_holds, outcome_held_changes,
            outcome_holds_left, outcome_ends)
        AS row (operation_id, leg, kind, status, account, counterparty, user_id, amount, currency,
            seq, balance, counterparty_seq, reason, at_account, needed, available, body_hash,
            log_offset, time, reference, metadata, held, hold, held_change, hold_left, ends);

        -- The key of the volume refuses a leg that is in it; here are the volumes before it.
        IF EXISTS (SELECT FROM volumes WHERE volume < own_volume) THEN
            IF decided_before(outcome_operations, outcome_legs, own_volume) THEN
                RAISE EXCEPTION 'a leg of this batch was decided in an earlier volume'
                    USING ERRCODE = 'unique_violation', CONSTRAINT = 'outcomes_pkey';
            END IF;
        END IF;
    END IF;

    IF cardinality(entry_accounts) > 0 THEN
        INSERT INTO entries (
            account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            partition, at, volume, reference)
        SELECT account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            own_partition, moment(time), own_volume, reference
        FROM unnest(entry_accounts, entry_seqs, entry_amounts, entry_balances_after,
            entry_operations, entry_legs, entry_kinds, entry_contras, entry_counterparties,
            entry_times, entry_references)
        AS row (account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            time, reference);
    END IF;

    IF cardinality(changed_numbers) > 0 THEN
        UPDATE accounts SET balance = row.balance, state = row.state, seq = row.seq,
            version = row.version, entry_time = moment(row.entry_time),
            held = coalesce(row.held, 0)
        FROM unnest(changed_numbers, changed_balances, changed_states, changed_seqs,
            changed_versions, changed_entry_times, changed_known_versions, changed_held)
        AS row (number, balance, state, seq, version, entry_time, known_version, held)
        WHERE accounts.number = row.number AND accounts.version = row.known_version;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> cardinality(changed_numbers) THEN
            RAISE EXCEPTION '% of % accounts are as remembered', changed,
                cardinality(changed_numbers) USING ERRCODE = 'MF002';
        END IF;
    END IF;

    IF cardinality(hold_operations) > 0 THEN
        INSERT INTO holds (operation_id, account, receiver, amount, amount_left, ends_at)
        SELECT operation_id, account, receiver, amount, amount_left, moment(ends)
        FROM unnest(hold_operations, hold_accounts, hold_receivers, hold_amounts,
            hold_amounts_left, hold_ends)
        AS row (operation_id, account, receiver, amount, amount_left, ends)
        WHERE amount_left > 0
        ON CONFLICT (operation_id) DO UPDATE SET amount_left = excluded.amount_left;
        DELETE FROM holds USING unnest(hold_operations, hold_amounts_left)
        AS ended (operation_id, amount_left)
        WHERE holds.operation_id = ended.operation_id AND ended.amount_left = 0;
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

_CHANGES = "kind IN ('set_state', 'hold', 'release', 'expire') AND status = 'settled'"

VOLUME_ACCOUNTS = f"""
DROP FUNCTION volume_accounts;
CREATE FUNCTION volume_accounts(of_volume integer) RETURNS TABLE (
    number text, owner uuid, currency text, opened_at timestamptz,
    balance bigint, seq bigint, entry_time timestamptz, other_changes bigint, held_change bigint
) LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    home text := 'volume_' || replace(of_volume::text, '-', 'm');
BEGIN
    RETURN QUERY EXECUTE format('
        SELECT number, opened.user_id, opened.currency, opened.at,
            last.balance_after, last.seq, last.at, coalesce(others.times, 0),
            coalesce(others.held_change, 0)
        FROM (
            SELECT account AS number, user_id, currency, at FROM %1$I.outcomes
            WHERE kind = ''open'' AND status = ''settled''
        ) AS opened
        FULL JOIN (
            SELECT DISTINCT ON (account) account AS number, seq, balance_after, at
            FROM %1$I.entries ORDER BY account, seq DESC
        ) AS last USING (number)
        FULL JOIN (
            SELECT account AS number,
                count(*) FILTER (WHERE {_quoted(_CHANGES)}) AS times,
                sum(held_change)::bigint AS held_change
            FROM %1$I.outcomes
            WHERE ({_quoted(_CHANGES)}) OR held_change IS NOT NULL GROUP BY account
        ) AS others USING (number)', home);
END
$$;
COMMENT ON FUNCTION volume_accounts IS
    'The accounts that a volume opened or changed, and how they were at its end';
REVOKE EXECUTE ON FUNCTION volume_accounts FROM PUBLIC;
"""  # noqa: S608 - all names are ours


def _archiving(body: str) -> str:
    """Return a function of archiving that also lets what is held go on."""
    body = _with(
        body,
        "coalesce(change.seq - it.seq, 0) + change.states_set",
        "coalesce(change.seq - it.seq, 0) + change.other_changes,\n"
        "        held = it.held + change.held_change",
    )
    archiving: str = _with(
        body,
        "coalesce(seq, 0) + states_set, 'open'",
        "coalesce(seq, 0) + other_changes, 'open',\n        held_change",
    )
    return archiving


_NOTE = _look_ups.IN_THE_LEDGER[
    _look_ups.IN_THE_LEDGER.index("CREATE OR REPLACE FUNCTION note_archived_volume") : (
        _look_ups.IN_THE_LEDGER.index("COMMENT ON FUNCTION note_archived_volume")
    )
]
_TAKE = _archive.IN_THE_ARCHIVE[
    _archive.IN_THE_ARCHIVE.index("CREATE FUNCTION take_volume_over") : (
        _archive.IN_THE_ARCHIVE.index("COMMENT ON FUNCTION take_volume_over")
    )
]
IN_THE_LEDGER = _archiving(_NOTE)
IN_THE_ARCHIVE = _with(
    _with(_archiving(_TAKE), "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"),
    "entry_time, version, state)",
    "entry_time, version, state, held)",
)

# What has no entry: rejections, openings, and what only changes what is held. Payouts (migration
# 0014) have one for each item, so they are listed by this index, too: an upgrade over both
# migrations makes it once.
_WITHOUT_ENTRY = """leg = 'request' AND user_id IS NOT NULL
    AND (status = 'rejected' OR kind IN ('open', 'hold', 'release', 'payout'))"""
_OF_BEFORE = "AND (status = 'rejected' OR kind = 'open')"
_NOW = "AND (status = 'rejected' OR kind IN ('open', 'hold', 'release', 'payout'))"

INDEXES = (
    f"""outcomes_listed ON {{home}}.outcomes (account, user_id, at, operation_id)
    WHERE {_WITHOUT_ENTRY}""",
    "outcomes_of_hold ON {home}.outcomes (hold) WHERE hold IS NOT NULL",
)
"""The first one replaces `outcomes_without_entry`, of which it is a part."""

_HOMES = "SELECT 'volume_' || replace(volume::text, '-', 'm') FROM volumes ORDER BY volume"


def _replaced(body: str) -> str:
    """Return SQL in which the rule for what has no entry is the new one."""
    for before, now in ((_OF_BEFORE, _NOW), (_quoted(_OF_BEFORE), _quoted(_NOW))):
        body = body.replace(before, now)
    return body


_INDEX_OF_BEFORE = _attempts.ADD_VOLUME[
    _attempts.ADD_VOLUME.index("    EXECUTE format($index$") : _attempts.ADD_VOLUME.index(
        "    EXECUTE format('ALTER TABLE %I.entries"
    )
]
ADD_VOLUME = _with(
    _attempts.ADD_VOLUME,
    _INDEX_OF_BEFORE,
    "".join(
        f"    EXECUTE format($index$CREATE INDEX {index.format(home='%I')}$index$, home);\n"
        for index in INDEXES
    ),
)

# A volume that was opened since the indexes were made is small: it has them in a moment.
INDEXES_OF_NEW_VOLUMES = f"""
DO $$ DECLARE home text; BEGIN
    FOR home IN
        SELECT it FROM ({_HOMES}) AS homes (it) WHERE to_regclass(it || '.outcomes_listed') IS NULL
    LOOP
        EXECUTE format($index$CREATE INDEX {INDEXES[0].format(home="%I")}$index$, home);
        EXECUTE format($index$CREATE INDEX {INDEXES[1].format(home="%I")}$index$, home);
        EXECUTE format($index$DROP INDEX %I.outcomes_without_entry$index$, home);
    END LOOP;
END $$;
"""  # noqa: S608 - all names are ours

# What ended a hold came after it, so it is in the hold's volume or a later one. The volume with the
# hold may be archived when it has ended.
END_OF_HOLD = """
CREATE FUNCTION end_of_hold(of_hold uuid) RETURNS SETOF outcomes LANGUAGE plpgsql STABLE ROWS 1
    SET enable_seqscan = off
AS $$
DECLARE
    made_in integer := (
        SELECT volume FROM legs_of(ARRAY[of_hold]) WHERE leg = 'request' LIMIT 1);
BEGIN
    RETURN QUERY EXECUTE format('SELECT * FROM outcomes
        WHERE hold = $1 AND hold_left = 0 AND volume = ANY (%L::integer[]) LIMIT 1',
        ARRAY(SELECT volume FROM volumes WHERE made_in IS NULL OR volume >= made_in))
    USING of_hold;
END
$$;
COMMENT ON FUNCTION end_of_hold IS 'What ended a hold; no row: it is open';
REVOKE EXECUTE ON FUNCTION end_of_hold FROM PUBLIC;
"""

GRANTS = """
GRANT UPDATE (held) ON accounts TO microfin_worker;
GRANT SELECT, INSERT, DELETE ON holds TO microfin_worker;
GRANT UPDATE (amount_left) ON holds TO microfin_worker;
GRANT SELECT ON holds TO microfin_api, microfin_auditor;
GRANT EXECUTE ON FUNCTION end_of_hold TO microfin_api;
"""


def upgrade() -> None:
    """Add holds, and the functions that write and read them."""
    homes = [row[0] for row in op.get_bind().execute(text(_HOMES))]
    with op.get_context().autocommit_block():
        for columns in (ACCOUNTS, OUTCOMES):
            _volumes.when_nobody_is_in_the_way(columns, contextlib.nullcontext)
        for statement in VALIDATE:
            op.execute(statement)
        for home in homes:
            logger.info("reading a volume twice, while others write", volume=home)
            for index in INDEXES:
                name = index.split(maxsplit=1)[0]
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {home}.{name}")
                op.execute(f"CREATE INDEX CONCURRENTLY {index.format(home=home)}")
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {home}.outcomes_without_entry")
    op.execute(TABLE)
    op.execute(ADD_VOLUME)
    op.execute(INDEXES_OF_NEW_VOLUMES)
    op.execute(_replaced(_attempts.SUM_UP))
    op.execute(
        _with(_replaced(_attempts.ATTEMPTS), "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    )
    op.execute(WRITE_BATCH)
    op.execute(_notes.RIGHTS)
    op.execute(VOLUME_ACCOUNTS)
    op.execute(IN_THE_LEDGER)
    op.execute(IN_THE_ARCHIVE)
    op.execute(END_OF_HOLD)
    op.execute(GRANTS)
