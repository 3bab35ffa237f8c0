"""What may go wrong with a ledger's rows, as SQL on a copy of the history of `ledger_history`."""

# ruff: noqa: S608, ISC004 - all text is ours, and a long statement reads best in its own lines

CORRUPT = "".join(
    f"ALTER TABLE {table} DISABLE TRIGGER USER;"
    for table in ("accounts", "outcomes", "entries", "partitions")
)

_TABLES = (
    *("accounts", "outcomes", "entries", "contra_balances"),
    *("outbox", "partitions", "quarantine", "audit_watermarks", "routing", "holds"),
)
KEEP = "CREATE SCHEMA kept;" + "".join(
    f"CREATE TABLE kept.{table} AS TABLE {table};" for table in _TABLES
)
"""Copies all rows."""

RESTORE = (
    CORRUPT
    + "".join(f"DELETE FROM {table}; INSERT INTO {table} TABLE kept.{table};" for table in _TABLES)
    + """
    ALTER TABLE accounts DROP CONSTRAINT IF EXISTS accounts_balance_check,
        ADD CONSTRAINT accounts_balance_check CHECK (balance >= 0);
    ALTER TABLE accounts DROP CONSTRAINT IF EXISTS accounts_held_check,
        ADD CONSTRAINT accounts_held_check CHECK (held >= 0 AND held <= balance);
    ALTER TABLE entries DROP CONSTRAINT IF EXISTS entries_balance_after_check,
        ADD CONSTRAINT entries_balance_after_check CHECK (balance_after >= 0);
    """
)
"""Makes the rows, and the constraints that a corruption drops, as they were."""

LAST = "(SELECT max(seq) FROM entries WHERE account = '{anna}')"

# What the credit of `crossed` did, undone without a trace on the destination's shard.
UNDO_CREDIT = """
    DELETE FROM outcomes WHERE operation_id = '{crossed}' AND leg = 'credit';
    DELETE FROM entries WHERE operation_id = '{crossed}' AND leg = 'credit';
    UPDATE accounts SET balance = balance - 700, seq = seq - 1, version = version - 1,
        entry_time = (SELECT max(at) FROM entries WHERE account = '{bert}') WHERE number = '{bert}';
    UPDATE contra_balances SET balance = balance + 700
        WHERE partition = 1 AND contra = 'in_transit' AND currency = 'EUR';
"""
# What the refund of `refunded` did, undone; that of `crossed` came after it.
UNDO_REFUND = """
    DELETE FROM outcomes WHERE operation_id = '{refunded}' AND leg = 'refund';
    DELETE FROM entries WHERE operation_id = '{refunded}' AND leg = 'refund';
    UPDATE entries SET seq = seq - 1, balance_after = balance_after - 300
        WHERE operation_id = '{crossed}' AND leg = 'request';
    UPDATE outcomes SET seq = seq - 1, balance = balance - 300
        WHERE operation_id = '{crossed}' AND leg = 'request';
    UPDATE accounts SET balance = balance - 300, seq = seq - 1, version = version - 1
        WHERE number = '{anna}';
    UPDATE contra_balances SET balance = balance + 300
        WHERE partition = 0 AND contra = 'in_transit' AND currency = 'EUR';
"""
# One more entry on Anna's account, with everything but an outcome.
ONE_MORE_ENTRY = """
    INSERT INTO entries SELECT account, seq + 1, 100, balance_after + 100, {operation}, 'request',
        'deposit', 'cash', '', partition, at
    FROM entries WHERE account = '{anna}' AND seq = LAST;
    UPDATE accounts SET balance = balance + 100, seq = seq + 1, version = version + 1
        WHERE number = '{anna}';
    UPDATE contra_balances SET balance = balance - 100
        WHERE partition = 0 AND contra = 'cash' AND currency = 'EUR';
"""
BOTH_CREDIT_AND_REFUND = """
    INSERT INTO outcomes SELECT operation_id, 'refund', kind, 'settled', account, counterparty,
        user_id, amount, currency, seq + 1, balance + amount, NULL, '', '', NULL, NULL, body_hash,
        partition, log_offset, at
    FROM outcomes WHERE operation_id = '{crossed}' AND leg = 'request';
    INSERT INTO entries SELECT account, seq + 1, -amount, balance_after - amount, operation_id,
        'refund', kind, contra, counterparty, partition, at
    FROM entries WHERE operation_id = '{crossed}' AND leg = 'request';
    UPDATE accounts SET balance = balance + 700, seq = seq + 1, version = version + 1
        WHERE number = '{anna}';
    UPDATE contra_balances SET balance = balance - 700
        WHERE partition = 0 AND contra = 'in_transit' AND currency = 'EUR';
"""
ANOTHER_CREDIT_AMOUNT = """
    UPDATE outcomes SET amount = amount + 1, balance = balance + 1
        WHERE operation_id = '{crossed}' AND leg = 'credit';
    UPDATE entries SET amount = amount + 1, balance_after = balance_after + 1
        WHERE operation_id = '{crossed}' AND leg = 'credit';
    UPDATE accounts SET balance = balance + 1 WHERE number = '{bert}';
    UPDATE contra_balances SET balance = balance - 1
        WHERE partition = 1 AND contra = 'in_transit' AND currency = 'EUR';
"""
# A leg that was decided once more, with an effect of its own that everything else agrees with. Only
# without the primary keys can it be in the table, or in another table of the same ledger.
_OF_ALL_OUTCOMES = """
    DO $$ DECLARE place regclass; BEGIN
        FOR place IN {tables} LOOP
            EXECUTE format('ALTER TABLE %s {change}', place);
        END LOOP;
    END $$;
"""
DROP_PRIMARY_KEYS = _OF_ALL_OUTCOMES.format(
    tables="SELECT conrelid FROM pg_constraint WHERE conname = 'outcomes_pkey'",
    change="DROP CONSTRAINT outcomes_pkey",
)
ADD_PRIMARY_KEYS = _OF_ALL_OUTCOMES.format(
    tables="SELECT oid FROM pg_class WHERE relname = 'outcomes' AND relkind = 'r'"
    " AND relnamespace <> 'kept'::regnamespace",
    change="ADD CONSTRAINT outcomes_pkey PRIMARY KEY (operation_id, leg)",
)
DECIDED_TWICE = """
    INSERT INTO outcomes SELECT (jsonb_populate_record(o, jsonb_build_object('seq', a.seq + 1,
        'balance', a.balance + o.amount, 'at', a.entry_time, 'log_offset', p.next_offset - 1))).*
    FROM outcomes o JOIN accounts a ON a.number = o.account JOIN partitions p USING (partition)
    WHERE o.operation_id = '{deposit}';
    INSERT INTO entries SELECT (jsonb_populate_record(e, jsonb_build_object('seq', a.seq + 1,
        'balance_after', a.balance + e.amount, 'at', a.entry_time))).*
    FROM entries e JOIN accounts a ON a.number = e.account WHERE e.operation_id = '{deposit}';
    UPDATE accounts SET balance = balance + 10000, seq = seq + 1, version = version + 1
        WHERE number = '{anna}';
    UPDATE contra_balances SET balance = balance - 10000
        WHERE partition = 0 AND contra = 'cash' AND currency = 'EUR';
"""
REJECTED = "status = 'rejected', reason = 'expired'"
THE_DEPOSIT = "operation_id = '{deposit}'"

# Name: shard ("source" is Anna's, "destination" Bert's), statements, the invariants that a full
# audit names at least, and those that one with --since does.
CORRUPTIONS: dict[str, tuple[str, str, set[int], set[int]]] = {
    "balance changed": (
        "source",
        "UPDATE accounts SET balance = balance + 1 WHERE number = '{anna}'",
        {1, 3},
        {3},
    ),
    "contra balance changed": (
        "source",
        "UPDATE contra_balances SET balance = balance + 1 WHERE partition = 0 AND contra = 'cash'"
        " AND currency = 'EUR'",
        {1},
        {1},
    ),
    "contra balance deleted": (
        "source",
        "DELETE FROM contra_balances WHERE partition = 0 AND contra = 'cash'",
        {1},
        {1},
    ),
    "last entry deleted": (
        "source",
        "DELETE FROM entries WHERE account = '{anna}' AND seq = LAST",
        {1, 3, 4},
        {3, 4},
    ),
    "middle entry deleted": (
        "source",
        f"DELETE FROM entries WHERE {THE_DEPOSIT}",
        {1, 3, 4},
        {3, 4},
    ),
    "receiver's entry of a transfer in one decision deleted": (
        "source",
        "DELETE FROM entries WHERE operation_id = '{inside}' AND account = '{carl}'",
        {1, 3, 4},
        {3, 4},
    ),
    "entry amount changed": (
        "source",
        f"UPDATE entries SET amount = amount + 1 WHERE {THE_DEPOSIT}",
        {1, 3, 4},
        {3, 4},
    ),
    "gap in seq": (
        "source",
        "UPDATE entries SET seq = seq + 1 WHERE account = '{anna}' AND seq = LAST;"
        "UPDATE accounts SET seq = seq + 1 WHERE number = '{anna}'",
        {3, 4},
        {3, 4},
    ),
    "seq of the account behind": (
        "source",
        "UPDATE accounts SET seq = seq - 1 WHERE number = '{anna}'",
        {3},
        {3},
    ),
    "balance_after broken": (
        "source",
        f"UPDATE entries SET balance_after = balance_after + 1 WHERE {THE_DEPOSIT}",
        {3, 4},
        {3, 4},
    ),
    "time goes back": (
        "source",
        "UPDATE entries SET at = at - interval '1 day' WHERE account = '{anna}' AND seq = LAST",
        {3, 4},
        {3, 4},
    ),
    "one effect twice": (
        "source",
        ONE_MORE_ENTRY.replace("{operation}", "'{deposit}'"),
        {4},
        {4},
    ),
    "entry without an outcome": (
        "source",
        ONE_MORE_ENTRY.replace("{operation}", "gen_random_uuid()"),
        {4},
        {4},
    ),
    "rejected outcome with an entry": (
        "source",
        ONE_MORE_ENTRY.replace("{operation}", "'{rejected}'"),
        {4},
        {4},
    ),
    "outcome deleted": ("source", f"DELETE FROM outcomes WHERE {THE_DEPOSIT}", {4}, {4}),
    "outcome now rejected": (
        "source",
        f"UPDATE outcomes SET {REJECTED} WHERE {THE_DEPOSIT}",
        {4},
        {4},
    ),
    "outcome of another amount": (
        "source",
        f"UPDATE outcomes SET amount = amount + 1 WHERE {THE_DEPOSIT}",
        {4},
        {4},
    ),
    "outcome of another account": (
        "source",
        f"UPDATE outcomes SET account = '{{carl}}' WHERE {THE_DEPOSIT}",
        {4},
        {4},
    ),
    "debit now settled": (
        "source",
        "UPDATE outcomes SET status = 'settled' WHERE operation_id = '{crossed}'"
        " AND leg = 'request'",
        {4, 8},
        {4, 8},
    ),
    "credit deleted": ("destination", UNDO_CREDIT, {8}, {8}),
    "refund deleted": ("source", UNDO_REFUND, {8}, {8}),
    "credit and refund": ("source", BOTH_CREDIT_AND_REFUND, {8}, {8}),
    "refund without a rejected credit": (
        "destination",
        "DELETE FROM outcomes WHERE operation_id = '{refunded}' AND leg = 'credit'",
        {8},
        {8},
    ),
    "credit without its request": (
        "source",
        "DELETE FROM outcomes WHERE operation_id = '{crossed}' AND leg = 'request'",
        {4, 8},
        {4, 8},
    ),
    "credit of another amount": ("destination", ANOTHER_CREDIT_AMOUNT, {8}, {8}),
    "credit from another account": (
        "destination",
        "UPDATE outcomes SET counterparty = '{carl}' WHERE operation_id = '{crossed}'"
        " AND leg = 'credit'; UPDATE entries SET counterparty = '{carl}'"
        " WHERE operation_id = '{crossed}' AND leg = 'credit'",
        {8},
        {8},
    ),
    "negative balance": (
        "source",
        "ALTER TABLE accounts DROP CONSTRAINT accounts_balance_check,"
        " DROP CONSTRAINT accounts_held_check;"
        "UPDATE accounts SET balance = -1 WHERE number = '{anna}'",
        {1, 2, 3},
        {2, 3},
    ),
    "negative balance after an entry": (
        "source",
        "ALTER TABLE entries DROP CONSTRAINT entries_balance_after_check;"
        f"UPDATE entries SET balance_after = -1 WHERE {THE_DEPOSIT}",
        {2, 3, 4},
        {2, 3, 4},
    ),
    "another currency": (
        "source",
        "UPDATE accounts SET currency = 'USD' WHERE number = '{anna}'",
        {1, 4},
        {4},
    ),
    "another contra account": (
        "source",
        f"UPDATE entries SET contra = 'in_transit' WHERE {THE_DEPOSIT}",
        {1, 4},
        {4},
    ),
    "another owner": (
        "source",
        "UPDATE accounts SET owner = gen_random_uuid() WHERE number = '{anna}'",
        {4},
        {4},
    ),
    "another owner of an account that was not touched since": (
        "source",
        "UPDATE accounts SET owner = gen_random_uuid() WHERE number = '{idle}'",
        {4},
        {4},
    ),
    "another currency of an account that was not touched since": (
        "source",
        "UPDATE accounts SET currency = 'USD' WHERE number = '{idle}'",
        {4},
        {4},
    ),
    "another time of opening": (
        "source",
        "UPDATE accounts SET opened_at = opened_at - interval '1 day' WHERE number = '{idle}'",
        {4},
        {4},
    ),
    "account deleted": (
        "source",
        "DELETE FROM accounts WHERE number = '{anna}'",
        {1, 3, 4},
        {4},
    ),
    "account that nobody opened": (
        "source",
        "DELETE FROM outcomes WHERE account = '{emil}' AND kind = 'open'",
        {4},
        {4},
    ),
    "partition behind its outcomes": (
        "source",
        "UPDATE partitions SET next_offset = (SELECT max(log_offset) FROM outcomes"
        " WHERE partition = 0) WHERE partition = 0",
        {4},
        {4},
    ),
    "partition behind the last audit": (
        "source",
        "UPDATE partitions SET next_offset = 1 WHERE partition = 0",
        {4},
        {4, 5},
    ),
    "partition under another generation than its routing": (
        "source",
        "UPDATE partitions SET generation = generation + 1 WHERE partition = 0",
        {6},
        {6},
    ),
    "partition of another number of partitions than its routing": (
        "source",
        "UPDATE partitions SET partition_count = partition_count * 2 WHERE partition = 0",
        {6},
        {6},
    ),
    "version beyond the changes": (
        "source",
        "UPDATE accounts SET version = version + 1 WHERE number = '{anna}'",
        {3},
        set(),
    ),
    "version behind the changes": (
        "source",
        "UPDATE accounts SET version = version - 1 WHERE number = '{anna}'",
        {3},
        {3},
    ),
    "entry and account later than the outcome": (
        "source",
        "UPDATE entries SET at = at + interval '1 day' WHERE account = '{anna}' AND seq = LAST;"
        "UPDATE accounts SET entry_time = entry_time + interval '1 day' WHERE number = '{anna}'",
        {4},
        {4},
    ),
    "first entry later than its outcome": (
        "destination",
        "UPDATE entries SET at = at + interval '1 ms' WHERE account = '{bert}' AND seq = 1",
        {4},
        {4},
    ),
    "time of an account without entries": (
        "source",
        "UPDATE accounts SET entry_time = entry_time + interval '1 day' WHERE number = '{idle}'",
        {3},
        set(),
    ),
    "balance that a rejection saw": (
        "source",
        "UPDATE outcomes SET available = available + 1 WHERE operation_id = '{rejected}'",
        {4},
        {4},
    ),
    "rejection of what the balance covers": (
        "source",
        "UPDATE outcomes SET needed = available WHERE operation_id = '{rejected}'",
        {4},
        {4},
    ),
    "rejection for a balance that it does not show": (
        "source",
        "UPDATE outcomes SET available = NULL WHERE operation_id = '{rejected}'",
        {4},
        {4},
    ),
    "rejection before the money was there": (
        "source",
        "UPDATE outcomes SET log_offset = 2 WHERE operation_id = '{rejected}'",
        {4},
        set(),
    ),
    "state of an account whose state was never set": (
        "source",
        "UPDATE accounts SET state = 'frozen' WHERE number = '{anna}'",
        {4},
        {4},
    ),
    "state other than the one last set": (
        "destination",
        "UPDATE accounts SET state = 'closed' WHERE number = '{dora}'",
        {4},
        {4},
    ),
    "hash of another body": (
        "source",
        f"UPDATE outcomes SET body_hash = decode(md5('another'), 'hex') WHERE {THE_DEPOSIT}",
        {4},
        {4},
    ),
    "metadata changed": (
        "source",
        'UPDATE outcomes SET metadata = metadata || \'{{"b": "1"}}\''
        " WHERE operation_id = '{crossed}' AND leg = 'request'",
        {4},
        {4},
    ),
    "metadata lost": (
        "source",
        "UPDATE outcomes SET metadata = NULL WHERE operation_id = '{crossed}' AND leg = 'request'",
        {4},
        {4},
    ),
    "reference of an entry lost": (
        "destination",
        "UPDATE entries SET reference = NULL WHERE operation_id = '{crossed}'",
        {4},
        {4},
    ),
    "reference of a deposit that had none": (
        "source",
        "UPDATE outcomes SET reference = 'x' WHERE operation_id = '{deposit}';"
        "UPDATE entries SET reference = 'x' WHERE operation_id = '{deposit}'",
        {4},
        {4},
    ),
    "another reference with the credit than with the request, and a hash that fits": (
        "destination",
        "UPDATE outcomes SET reference = NULL, body_hash = decode('{bare_credit}', 'hex')"
        " WHERE operation_id = '{crossed}' AND leg = 'credit';"
        "UPDATE entries SET reference = NULL WHERE operation_id = '{crossed}' AND leg = 'credit'",
        {8},
        {8},
    ),
    "user of a credit": (
        "destination",
        "UPDATE outcomes SET user_id = gen_random_uuid() WHERE operation_id = '{crossed}'"
        " AND leg = 'credit'",
        {4},
        {4},
    ),
    "hash of a state that does not exist": (
        "destination",
        "UPDATE outcomes SET body_hash = decode(md5('another'), 'hex')"
        " WHERE account = '{dora}' AND kind = 'set_state'",
        {4},
        {4},
    ),
    "more held than there is": (
        "source",
        "ALTER TABLE accounts DROP CONSTRAINT accounts_held_check;"
        "UPDATE accounts SET held = balance + 1 WHERE number = '{fritz}'",
        {13},
        {13},
    ),
    "less held than the hold has left": (
        "source",
        "UPDATE accounts SET held = held - 1 WHERE number = '{fritz}'",
        {13},
        {13},
    ),
    "a hold deleted": ("source", "DELETE FROM holds WHERE operation_id = '{hold}'", {13}, {13}),
    "a hold made of nothing": (
        "source",
        "INSERT INTO holds SELECT gen_random_uuid(), account, receiver, amount, amount_left,"
        " ends_at FROM holds WHERE operation_id = '{hold}'",
        {13},
        {13},
    ),
    "less left of a hold, and less held": (
        "source",
        "UPDATE holds SET amount_left = amount_left - 1 WHERE operation_id = '{hold}';"
        "UPDATE accounts SET held = held - 1 WHERE number = '{fritz}'",
        {13},
        {13},
    ),
    "a hold that pays somebody else": (
        "source",
        "UPDATE holds SET receiver = '{carl}' WHERE operation_id = '{hold}'",
        {13},
        {13},
    ),
    "a hold that ends later": (
        "source",
        "UPDATE holds SET ends_at = ends_at + interval '1 day' WHERE operation_id = '{hold}'",
        {13},
        {13},
    ),
    "a hold that was made to end later": (
        "source",
        "UPDATE holds SET ends_at = ends_at + interval '1 day' WHERE operation_id = '{hold}';"
        "UPDATE outcomes SET ends_at = ends_at + interval '1 day' WHERE operation_id = '{hold}'",
        {4},
        {4},
    ),
    "a release undone in the outcome": (
        "source",
        "UPDATE outcomes SET held_change = held_change - 1 WHERE operation_id = '{released}'",
        {13},
        {13},
    ),
    "a capture that took more than it paid": (
        "source",
        "UPDATE outcomes SET held_change = held_change - 1 WHERE operation_id = '{captured}'",
        {4, 13},
        {4, 13},
    ),
    "a capture from another hold": (
        "source",
        "UPDATE outcomes SET hold = gen_random_uuid() WHERE operation_id = '{captured}'",
        {4, 13},
        {4, 13},
    ),
    "an outcome that shows something else as held": (
        "source",
        "UPDATE outcomes SET held = held + 1 WHERE operation_id = '{captured}'",
        {13},
        set(),
    ),
    "partition deleted": (
        "source",
        "DELETE FROM partitions WHERE partition = 0",
        {4},
        {5},
    ),
}
