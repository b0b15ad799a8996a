"""The versions of the review queue's tables, as Alembic's migrations."""
