"""An owner's accounts in the order in which they were opened, page by page."""

from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the index on the owner by one that gives his accounts in their order.

    Built beside whatever is written meanwhile. A build that was broken off leaves an index that
    nobody may use, so what is there of an earlier attempt goes first.
    """
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS accounts_opened")
        op.execute(
            "CREATE INDEX CONCURRENTLY accounts_opened ON accounts (owner, opened_at, number)"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS accounts_owner")
