"""An owner's accounts in the order in which they were opened, page by page."""

from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the index on the owner by one that returns an owner's accounts in their order.

    It is built concurrently, while others write. An interrupted build leaves an unusable index, so
    the index of an earlier attempt is dropped first.
    """
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS accounts_opened")
        op.execute(
            "CREATE INDEX CONCURRENTLY accounts_opened ON accounts (owner, opened_at, number)"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS accounts_owner")
