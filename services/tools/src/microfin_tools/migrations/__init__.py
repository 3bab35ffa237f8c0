"""The schema: Alembic revisions in plain SQL, one a file, and what runs them."""
