"""Rules that hold in the database whoever writes: what belongs to this shard."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A worker that is led to another shard inserts its partition's row there first, whatever release it
# is of.
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


def upgrade() -> None:
    """Create the trigger."""
    op.execute(PARTITIONS_OF_THIS_SHARD)
