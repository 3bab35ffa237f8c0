"""Operations have a reference and metadata.

See docs/adr/0048-references.md. The columns are null for an operation without them, so nothing is
written anew and nothing grows. A command with one of them has wire version 2, which no worker of
the release before reads: each claim says what its worker reads, so that an API does not send too
early.

The function of before stays beside the new one, which has more
parameters: workers of the release before call it until they are upgraded.
"""

from importlib import import_module

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_volumes = import_module("microfin_tools.migrations.versions.0008_volumes")
_look_ups = import_module("microfin_tools.migrations.versions.0010_look_ups")

COLUMNS = """
LOCK TABLE partitions, outcomes, entries IN ACCESS EXCLUSIVE MODE;
ALTER TABLE outcomes ADD COLUMN reference text, ADD COLUMN metadata jsonb;
ALTER TABLE entries ADD COLUMN reference text;
COMMENT ON COLUMN outcomes.reference IS 'What the client wrote for both sides; null: nothing';
COMMENT ON COLUMN outcomes.metadata IS 'Names and values of the client for itself; null: none';

ALTER TABLE partitions ADD COLUMN wire_epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN wire_version integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN partitions.wire_version IS
    'The newest wire version that the claimant of wire_epoch reads; other claimants read 1';
GRANT UPDATE (wire_epoch, wire_version) ON partitions TO microfin_worker;
"""


def _after(text: str, old: str, new: str) -> str:
    """Return `text` with `new` after `old`. Raises ValueError if `old` is not there once."""
    before, after = text.split(old)
    return before + old + new + after


def _write_batch() -> str:
    text: str = _look_ups.WRITE_BATCH
    for old, new in (
        (
            "outcome_offsets bigint[], outcome_times bigint[],\n",
            "    outcome_references text[], outcome_metadata jsonb[],\n",
        ),
        ("entry_counterparties text[], entry_times bigint[],\n", "    entry_references text[],\n"),
        ("log_offset, at, volume", ", reference, metadata"),
        ("own_partition, log_offset, moment(time), own_volume", ", reference, metadata"),
        (
            "outcome_body_hashes, outcome_offsets, outcome_times",
            ", outcome_references, outcome_metadata",
        ),
        ("            log_offset, time", ", reference, metadata"),
        ("            partition, at, volume", ", reference"),
        ("            own_partition, moment(time), own_volume", ", reference"),
        ("            entry_times", ", entry_references"),
        ("counterparty,\n            time", ", reference"),
    ):
        text = _after(text, old, new)
    return text


# References and metadata come as empty arrays where no row of the batch has any: an array that is
# shorter than the others is filled up with nulls.
WRITE_BATCH = _write_batch()

RIGHTS = """
DO $$ DECLARE function regprocedure; BEGIN
    FOR function IN SELECT oid FROM pg_proc WHERE proname = 'write_batch' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO microfin_worker', function);
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', function,
            'Write a decided batch of one partition, if that is still where it was decided');
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Add the columns, and a function that writes them."""
    _volumes.when_nobody_is_in_the_way(COLUMNS, op.get_bind().begin_nested)
    op.execute(WRITE_BATCH)
    op.execute(RIGHTS)
