"""Opening a session as a function: PostgreSQL caches its plans behind every kind of pooler."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The share lock lets a change of the user's epoch wait until this session can be seen, and so be
# ended; and it lets this session wait for a change under way, and then not be opened. Only so many
# sessions end at once that the answer stays small.
OPEN_SESSION = """
CREATE FUNCTION open_session(
    of_user uuid, at_epoch bigint, new_token_hash bytea, lasts_seconds bigint, most integer
) RETURNS bytea[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
DECLARE
    ended bytea[];
BEGIN
    PERFORM FROM users
    WHERE id = of_user AND session_epoch = at_epoch AND disabled_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    WITH deleted AS (
        DELETE FROM sessions WHERE token_hash IN (
            SELECT token_hash FROM sessions WHERE user_id = of_user
            ORDER BY created_at DESC, token_hash OFFSET most - 1 LIMIT 1000
        ) RETURNING token_hash
    ) SELECT array_agg(token_hash) INTO ended FROM deleted;

    INSERT INTO sessions (token_hash, user_id, epoch, expires_at, last_used_at)
    VALUES (new_token_hash, of_user, at_epoch,
        clock_timestamp() + lasts_seconds * interval '1 second', clock_timestamp());
    RETURN coalesce(ended, '{}');
END
$$;
COMMENT ON FUNCTION open_session IS
    'Open a session of a user at this epoch; return the sessions that ended for it, or NULL';

REVOKE EXECUTE ON FUNCTION open_session FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_session TO microfin_api;
"""


def upgrade() -> None:
    """Create the function that opens a session."""
    op.execute(OPEN_SESSION)
