"""PostgreSQL: connections, rows, queries, literals."""
