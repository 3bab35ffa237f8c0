"""Rules that the database enforces on every writer, and grants on single columns."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A worker whose URL leads to another shard first inserts its partition's row there, in every
# release.
PARTITIONS_OF_THIS_SHARD = """
CREATE FUNCTION refuse_partition_of_another_shard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    own routing;
BEGIN
    SELECT * INTO own FROM routing;
    IF NEW.partition % own.shards <> own.shard THEN
        RAISE EXCEPTION 'partition % does not belong to shard % of %', NEW.partition, own.shard,
            own.shards
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER partitions_are_of_this_shard BEFORE INSERT ON partitions
    FOR EACH ROW EXECUTE FUNCTION refuse_partition_of_another_shard();
"""

# The columns are named, so that a batch, which changes none of them, does not pay for the trigger.
ACCOUNTS_STAY_WHOSE_THEY_ARE = """
CREATE FUNCTION refuse_another_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'number, owner, currency and opened_at of an account never change'
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER accounts_stay_whose_they_are
    BEFORE UPDATE OF number, owner, currency, opened_at ON accounts
    FOR EACH ROW WHEN ((OLD.number, OLD.owner, OLD.currency, OLD.opened_at)
        IS DISTINCT FROM (NEW.number, NEW.owner, NEW.currency, NEW.opened_at))
    EXECUTE FUNCTION refuse_another_account();
CREATE TRIGGER accounts_are_never_deleted BEFORE DELETE OR TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

# With this index the auditor finds the outcome that opened an account.
OPENED = """
CREATE INDEX outcomes_opened ON outcomes (account) WHERE kind = 'open' AND status = 'settled';
"""

# FOR UPDATE and FOR SHARE need the right to update at least one column.
GRANTS = """
REVOKE UPDATE ON accounts, contra_balances, partitions, routing FROM microfin_worker;
GRANT UPDATE (balance, state, seq, version, entry_time) ON accounts TO microfin_worker;
GRANT UPDATE (balance) ON contra_balances TO microfin_worker;
GRANT UPDATE (next_offset, fingerprint, epoch, generation, partition_count, touched_at)
    ON partitions TO microfin_worker;
GRANT UPDATE (generation, partition_count, intended_generation, intended_partition_count,
    intent_token, intended_at) ON routing TO microfin_worker;

REVOKE UPDATE ON leases, users, sessions FROM microfin_api;
GRANT UPDATE (generation, renewed_at) ON leases TO microfin_api;
GRANT UPDATE (password_hash, session_epoch) ON users TO microfin_api;
GRANT UPDATE (last_used_at, expires_at) ON sessions TO microfin_api;

REVOKE UPDATE ON audit_watermarks FROM microfin_auditor;
GRANT UPDATE (state, audited_at) ON audit_watermarks TO microfin_auditor;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
DO $$ BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END $$;
"""


def upgrade() -> None:
    """Create the triggers and the index, and narrow the grants."""
    op.execute(PARTITIONS_OF_THIS_SHARD)
    op.execute(ACCOUNTS_STAY_WHOSE_THEY_ARE)
    op.execute(OPENED)
    op.execute(GRANTS)
