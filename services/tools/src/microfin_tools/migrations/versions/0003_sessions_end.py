"""Ending sessions: an epoch for each user, and the time of a session's last use."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The index first, under a lock that allows reading sessions. API processes of the previous release
# insert sessions without an epoch: the trigger sets the user's epoch, and refuses disabled users.
SESSIONS = """
CREATE INDEX sessions_user ON sessions (user_id, created_at);

ALTER TABLE users
    ADD COLUMN session_epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN disabled_at timestamptz;
COMMENT ON COLUMN users.session_epoch IS 'Sessions of an earlier epoch have ended';

ALTER TABLE sessions
    ADD COLUMN epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN last_used_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE sessions ALTER COLUMN epoch DROP DEFAULT;

CREATE FUNCTION session_of_the_users_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.epoch IS NULL THEN
        SELECT session_epoch INTO NEW.epoch FROM users
        WHERE id = NEW.user_id AND disabled_at IS NULL FOR SHARE;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION session_of_the_users_epoch IS
    'Gives a session that names no epoch the one of its user';
CREATE TRIGGER session_of_the_users_epoch BEFORE INSERT ON sessions
    FOR EACH ROW EXECUTE FUNCTION session_of_the_users_epoch();
"""


def upgrade() -> None:
    """Add the epochs, the time of the last use, and the index by user."""
    op.execute(SESSIONS)
