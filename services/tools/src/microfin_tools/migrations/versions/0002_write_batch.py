"""The worker's write as a function: PostgreSQL caches its plans behind every kind of pooler."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# microfin_worker.postgres_store distinguishes MF001 and MF002. Arrays of one group have the same
# length; an empty group costs nothing. The plans are made once for batches of all sizes: with an
# index look-up for each account, which is right for 500 accounts and for one.
WRITE_BATCH = """
CREATE FUNCTION moment(milliseconds bigint) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN timestamptz 'epoch' + milliseconds * interval '1 millisecond';

CREATE FUNCTION write_batch(
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
BEGIN
    UPDATE partitions
    SET next_offset = following_offset, fingerprint = last_fingerprint,
        touched_at = clock_timestamp()
    WHERE partition = own_partition AND epoch = own_epoch AND generation = own_generation
        AND partition_count = own_partition_count AND next_offset = own_offset;
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
            log_offset, at)
        SELECT operation_id, leg, kind, status, account, counterparty, user_id, amount, currency,
            seq, balance, counterparty_seq, reason, at_account, needed, available, body_hash,
            own_partition, log_offset, moment(time)
        FROM unnest(outcome_operations, outcome_legs, outcome_kinds, outcome_statuses,
            outcome_accounts, outcome_counterparties, outcome_users, outcome_amounts,
            outcome_currencies, outcome_seqs, outcome_balances, outcome_counterparty_seqs,
            outcome_reasons, outcome_at_accounts, outcome_needed, outcome_available,
            outcome_body_hashes, outcome_offsets, outcome_times)
        AS row (operation_id, leg, kind, status, account, counterparty, user_id, amount, currency,
            seq, balance, counterparty_seq, reason, at_account, needed, available, body_hash,
            log_offset, time);
    END IF;

    IF cardinality(entry_accounts) > 0 THEN
        INSERT INTO entries (
            account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            partition, at)
        SELECT account, seq, amount, balance_after, operation_id, leg, kind, contra, counterparty,
            own_partition, moment(time)
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
COMMENT ON FUNCTION write_batch IS
    'Write a decided batch of one partition, if that is still where the batch was decided';

GRANT EXECUTE ON FUNCTION moment, write_batch TO microfin_worker;
"""


def upgrade() -> None:
    """Create the function that writes a worker's batch."""
    op.execute(WRITE_BATCH)
