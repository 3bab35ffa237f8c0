"""The ledger: accounts, outcomes, entries, contra balances, outbox, partitions, routing."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LEDGER = """
CREATE TABLE routing (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    shard integer NOT NULL CHECK (shard >= 0 AND shard < shards),
    shards integer NOT NULL CHECK (shards >= 1),
    generation bigint NOT NULL CHECK (generation >= 1),
    partition_count integer NOT NULL CHECK (partition_count % shards = 0),
    intended_generation bigint,
    intended_partition_count integer,
    intent_token uuid,
    intended_at timestamptz
);
COMMENT ON TABLE routing IS
    'How many partitions accounts are spread over, since which generation, and a growth under way';

CREATE TABLE partitions (
    partition integer PRIMARY KEY CHECK (partition >= 0),
    next_offset bigint NOT NULL DEFAULT 0 CHECK (next_offset >= 0),
    fingerprint bytea,
    epoch bigint NOT NULL,
    generation bigint NOT NULL,
    partition_count integer NOT NULL,
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE partitions IS 'Each partition: its claimant (epoch), place in the log, routing';
COMMENT ON COLUMN partitions.fingerprint IS 'Hash of the record before next_offset';

CREATE TABLE accounts (
    number text COLLATE "C" PRIMARY KEY CHECK (length(number) = 12),
    owner uuid NOT NULL,
    currency text NOT NULL CHECK (length(currency) = 3),
    balance bigint NOT NULL DEFAULT 0 CHECK (balance >= 0),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'frozen', 'closed')),
    seq bigint NOT NULL DEFAULT 0 CHECK (seq >= 0),
    version bigint NOT NULL DEFAULT 1,
    entry_time timestamptz NOT NULL,
    opened_at timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX accounts_owner ON accounts (owner);

CREATE TABLE outcomes (
    operation_id uuid NOT NULL,
    leg text NOT NULL CHECK (leg IN ('request', 'credit', 'refund')),
    kind text NOT NULL
        CHECK (kind IN ('open', 'deposit', 'withdraw', 'transfer', 'set_state')),
    status text NOT NULL CHECK (status IN ('settled', 'debited', 'rejected')),
    account text COLLATE "C" NOT NULL,
    counterparty text COLLATE "C" NOT NULL,
    user_id uuid,
    amount bigint CHECK (amount > 0),
    currency text NOT NULL,
    seq bigint,
    balance bigint,
    counterparty_seq bigint,
    reason text NOT NULL CHECK ((status = 'rejected') = (reason <> '')),
    at_account text NOT NULL,
    needed bigint,
    available bigint,
    body_hash bytea NOT NULL,
    partition integer NOT NULL,
    log_offset bigint NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (operation_id, leg)
);
COMMENT ON TABLE outcomes IS 'The immutable record of each decided leg; amounts in minor units';
CREATE INDEX outcomes_log ON outcomes (partition, log_offset);

CREATE TABLE entries (
    account text COLLATE "C" NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 1),
    amount bigint NOT NULL CHECK (amount <> 0),
    balance_after bigint NOT NULL CHECK (balance_after >= 0),
    operation_id uuid NOT NULL,
    leg text NOT NULL,
    kind text NOT NULL,
    contra text NOT NULL CHECK (contra IN ('cash', 'in_transit')),
    counterparty text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (account, seq)
);
COMMENT ON TABLE entries IS 'The immutable statement lines of all accounts; amounts in minor units';

CREATE TABLE contra_balances (
    partition integer NOT NULL,
    contra text NOT NULL CHECK (contra IN ('cash', 'in_transit')),
    currency text NOT NULL,
    balance numeric NOT NULL,
    PRIMARY KEY (partition, contra, currency)
) WITH (fillfactor = 50);

CREATE TABLE outbox (
    partition integer NOT NULL,
    log_offset bigint NOT NULL,
    step integer NOT NULL,
    operation_id uuid NOT NULL,
    command bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, log_offset, step)
);
COMMENT ON TABLE outbox IS 'Commands that a partition sends on and the broker has not acknowledged';
COMMENT ON COLUMN outbox.partition IS 'The sending partition';

CREATE TABLE quarantine (
    partition integer NOT NULL,
    log_offset bigint NOT NULL,
    key bytea,
    value bytea,
    appended_at timestamptz NOT NULL,
    reason text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    replayed_at timestamptz,
    PRIMARY KEY (partition, log_offset)
);

CREATE TABLE leases (
    instance text PRIMARY KEY,
    generation bigint NOT NULL,
    renewed_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE leases IS 'API processes that may produce for this shard, and what they know';

CREATE TABLE audit_watermarks (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    state jsonb NOT NULL,
    audited_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE audit_watermarks IS 'Up to where `microfin audit --since` has audited this shard';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER outcomes_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON outcomes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL UNIQUE,
    name text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE users IS 'Used on shard 0 only; email is lower case';

CREATE TABLE sessions (
    token_hash bytea PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE sessions IS 'Used on shard 0 only; holds a hash of the session id, not the id';
CREATE INDEX sessions_expiry ON sessions (expires_at);
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON accounts, contra_balances, partitions TO microfin_worker;
GRANT SELECT, INSERT ON outcomes, entries, quarantine TO microfin_worker;
GRANT SELECT, INSERT, DELETE ON outbox TO microfin_worker;
GRANT SELECT, UPDATE ON routing TO microfin_worker;  -- claims lock it, growth changes it

GRANT SELECT ON accounts, outcomes, entries, outbox, partitions, routing TO microfin_api;
GRANT SELECT, INSERT, UPDATE ON users TO microfin_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions, leases TO microfin_api;

GRANT SELECT ON routing, partitions, accounts, outcomes, entries, contra_balances, outbox,
    quarantine TO microfin_auditor;
GRANT SELECT, INSERT, UPDATE ON audit_watermarks TO microfin_auditor;
"""


def upgrade() -> None:
    """Create the tables, the triggers that keep them append-only, and the roles' grants."""
    op.execute(LEDGER)
    op.execute(GRANTS)
